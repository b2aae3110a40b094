"""safetensors files as dictionaries of raw tensors: (dtype name, shape, bytes). No dependency but the standard library."""
import json
import struct
from typing import Dict, NamedTuple, Tuple


class Raw(NamedTuple):
    dtype: str  # F64 F32 F16 BF16 I64 I32
    shape: Tuple[int, ...]
    data: bytes


def read(path) -> Tuple[Dict[str, Raw], Dict[str, str]]:
    """Tensors and metadata of a file."""
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        body = file.read()
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        tensors[name] = Raw(entry["dtype"], tuple(entry["shape"]), body[first:last])
    return tensors, metadata


def write(path, tensors: Dict[str, Raw]) -> None:
    """Writes a file; the larger elements first, so that every tensor is aligned."""
    width = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2}
    header, offset, parts = {}, 0, []
    for name, raw in sorted(tensors.items(), key=lambda item: -width[item[1].dtype]):
        header[name] = {"dtype": raw.dtype, "shape": list(raw.shape), "data_offsets": [offset, offset + len(raw.data)]}
        offset += len(raw.data)
        parts.append(raw.data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(parts))
