"""A complete worker for `./kdacheck verify --exec "python3 numpy_worker.py"` (PROTOCOL.md): the recurrence in float32."""
import json
import struct
import sys

import numpy as np

CONTRACT = "order=recurrence chunk=1 gates=log_decay,absent beta_max=2 validates=no"


def read(path):
    """Tensors and metadata of a safetensors file of F32 and I64."""
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    types = {"F32": "<f4", "I64": "<i8"}
    slices = {n: data[8 + size + t["data_offsets"][0] : 8 + size + t["data_offsets"][1]] for n, t in header.items()}
    return {n: np.frombuffer(slices[n], types[t["dtype"]]).reshape(t["shape"]) for n, t in header.items()}, metadata


def write(path, tensors):
    header, offset = {}, 0
    for name, x in tensors.items():
        header[name] = {"dtype": "F32", "shape": x.shape, "data_offsets": [offset, offset + x.nbytes]}
        offset += x.nbytes
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(x.tobytes() for x in tensors.values()))


def forward(problem, metadata):
    q, k, v, beta = (problem[n] for n in ("q", "k", "v", "beta"))
    B, T, HV, V = v.shape
    K, ratio, scale = q.shape[3], HV // q.shape[2], np.float32(metadata["scale"])
    rows = [x.reshape(B * T, *x.shape[2:]) for x in (q, k, v, beta)]
    alpha = np.exp(problem["g"]).reshape(B * T, HV, K) if "g" in problem else np.ones((B * T, HV, K), np.float32)
    starts = problem.get("cu_seqlens", np.arange(B + 1) * T)
    N, o = len(starts) - 1, np.zeros((B * T, HV, V), np.float32)
    S = problem["initial_state"].copy() if "initial_state" in problem else np.zeros((N, HV, K, V), np.float32)
    for n in range(N):
        for t in range(starts[n], starts[n + 1]):
            qt, kt = (np.repeat(x[t], ratio, axis=0) for x in rows[:2])
            decayed = alpha[t][:, :, None] * S[n]
            residual = rows[3][t][:, None] * (rows[2][t] - np.einsum("hk,hkv->hv", kt, decayed))
            S[n] = decayed + kt[:, :, None] * residual[:, None, :]
            o[t] = np.einsum("hk,hkv->hv", scale * qt, S[n])
    return {"o": o.reshape(B, T, HV, V), "final_state": S}


if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "hello":
            answer = {"protocol": 1, "kernels": [{"name": "numpy.recurrence", "contract": CONTRACT, "summary": "token recurrence in NumPy"}]}
        else:
            write(request["result"], forward(*read(request["problem"])))
            answer = {"done": True}
        print(json.dumps(answer), flush=True)
