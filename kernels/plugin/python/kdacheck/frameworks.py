"""Raw tensors to and from NumPy, PyTorch and JAX. Storage is reused from call to call, so that a kernel that caches its
results by pointer meets new values in old memory."""
import sys

import numpy as np

from .tensors import Raw

_NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32}


def _widened(raw: Raw) -> np.ndarray:
    """bf16 has no NumPy type: its 16 bits are the upper half of a float32."""
    if raw.dtype == "BF16":
        bits = np.frombuffer(raw.data, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(raw.shape)
    return np.frombuffer(raw.data, _NUMPY[raw.dtype]).reshape(raw.shape)


class Numpy:
    """bf16 arrives as float32; results may be of any floating-point type."""

    name = "numpy"

    def __init__(self, device):
        self._store = {}

    def tensor(self, name, raw):
        values = _widened(raw)
        kept = self._store.setdefault((name, values.shape, values.dtype.str), np.empty_like(values))
        kept[...] = values
        return kept

    def raw(self, x):
        x = np.ascontiguousarray(x)
        names = {np.dtype(np.float64): "F64", np.dtype(np.float32): "F32", np.dtype(np.float16): "F16"}
        if x.dtype not in names:
            raise TypeError(f"a result is of type {x.dtype}, which is none of float16, float32, float64")
        return Raw(names[x.dtype], tuple(x.shape), x.tobytes())

    def overlap(self, result, inputs):
        return next((n for n, x in inputs.items() if isinstance(x, np.ndarray) and np.shares_memory(result, x)), None)

    def broken(self, error):
        return False


class Torch:
    name = "torch"

    def __init__(self, device):
        import torch

        self.torch, self.device, self._store = torch, device, {}

    def tensor(self, name, raw):
        torch = self.torch
        types = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32}
        values = torch.empty(raw.shape, dtype=types[raw.dtype])
        if raw.data:
            values = torch.frombuffer(bytearray(raw.data), dtype=types[raw.dtype]).reshape(raw.shape)
        key = (name, raw.shape, raw.dtype)
        if key not in self._store:
            self._store[key] = torch.empty(raw.shape, dtype=types[raw.dtype], device=self.device)
        kept = self._store[key].detach()
        kept.copy_(values)
        return kept

    def raw(self, x):
        torch = self.torch
        names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
        if not torch.is_tensor(x):
            raise TypeError(f"a result is a {type(x).__name__}, and no PyTorch tensor")
        x = x.detach()
        if x.dtype not in names:
            raise TypeError(f"a result is of type {x.dtype}, which is none of float16, bfloat16, float32, float64")
        # a copy of its own: a tensor of one element counts as contiguous whatever its stride, and such a one has no bytes to view
        dense = torch.empty(x.shape, dtype=x.dtype)
        dense.copy_(x)
        data = dense.reshape(-1).view(torch.uint8).numpy().tobytes() if x.numel() else b""
        return Raw(names[x.dtype], tuple(x.shape), data)

    def overlap(self, result, inputs):
        def place(x):  # PyTorch 1 has no untyped_storage
            return (x.untyped_storage() if hasattr(x, "untyped_storage") else x.storage()).data_ptr()

        if not self.torch.is_tensor(result):
            return None
        own = place(result)
        return next((n for n, x in inputs.items() if self.torch.is_tensor(x) and x.numel() and place(x) == own), None)

    def broken(self, error):
        """Whether the device was left unusable or short of memory, rather than a call turned down."""
        kinds = tuple(getattr(self.torch, n) for n in ("OutOfMemoryError", "AcceleratorError") if hasattr(self.torch, n))
        return isinstance(error, kinds) or "CUDA error" in str(error)


class Jax:
    """By DLPack, without a copy on the CPU; bf16, which NumPy's DLPack lacks, goes as its 16 bits. That a result is an input itself is no
    fault here: arrays cannot be changed."""

    name = "jax"
    _ALIGNMENT = 64  # what JAX asks of memory that it takes over as it is

    def __init__(self, device):
        import jax
        import jax.dlpack

        self.jax, self._store = jax, {}
        self.elsewhere = jax.default_backend() != "cpu"

    def _aligned(self, shape, dtype):
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        room = np.zeros(size + self._ALIGNMENT, np.uint8)
        first = -room.ctypes.data % self._ALIGNMENT
        return room[first : first + size].view(dtype).reshape(shape)

    def tensor(self, name, raw):
        dtype = np.uint16 if raw.dtype == "BF16" else _NUMPY[raw.dtype]
        key = (name, raw.shape, raw.dtype)
        if key not in self._store:
            kept = self._aligned(raw.shape, dtype)
            self._store[key] = (kept, self.jax.dlpack.from_dlpack(kept))
        kept, x = self._store[key]
        kept[...] = np.frombuffer(raw.data, dtype).reshape(raw.shape)
        if x.dtype != dtype or not x.size or x.unsafe_buffer_pointer() != kept.ctypes.data:  # int64 as int32, say: JAX made a copy
            x = self.jax.dlpack.from_dlpack(kept)
        if raw.dtype == "BF16":
            x = self.jax.lax.bitcast_convert_type(x, self.jax.numpy.bfloat16)
        return self.jax.device_put(x, self.jax.devices()[0]) if self.elsewhere else x

    def raw(self, x):
        if not isinstance(x, self.jax.Array):
            return Numpy.raw(self, np.asarray(x))
        shape, bf16 = tuple(x.shape), x.dtype == self.jax.numpy.bfloat16
        if bf16:
            x = self.jax.lax.bitcast_convert_type(x, self.jax.numpy.uint16)
        if self.elsewhere:
            x = self.jax.device_put(x, self.jax.devices("cpu")[0])
        values = np.from_dlpack(x)
        return Raw("BF16", shape, np.ascontiguousarray(values).tobytes()) if bf16 else Numpy.raw(self, values)

    def overlap(self, result, inputs):
        return None

    def broken(self, error):
        return type(error).__name__ in ("XlaRuntimeError", "JaxRuntimeError")


def framework(name: str, device: str):
    if name == "auto":
        name = "torch" if "torch" in sys.modules else "jax" if "jax" in sys.modules else "numpy"
    known = {"numpy": Numpy, "torch": Torch, "jax": Jax}
    if name not in known:
        raise ValueError(f"framework '{name}' is none of {', '.join(known)}")
    return known[name](device)
