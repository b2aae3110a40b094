#!/usr/bin/env python3
"""Makes kda_layer0.safetensors: what the first KDA layer of an untrained model hands its kernel on real text.

    make_dump.py [TEXT [OUTPUT]]      numpy only; TEXT defaults to the licence that Debian ships as common-licenses/GPL-3

Layer and initialisation as published with Kimi Linear (arXiv 2510.26692) and in flash-linear-attention's KimiDeltaAttention:
RMS-normalised input, linear maps W ~ N(0, 0.02), depthwise causal convolutions of 4 taps ~ U(-1/2, 1/2) with swish on q, k, v, the
decay's input through a low-rank map (rank V), A = U(1, 16), dt log-uniform in [1e-3, 0.1] with dt_bias its inverse softplus, beta = sigmoid.
Words are tokens; an embedding N(0, 1) stands for the model's. The kernel normalises q and k and applies the softplus gate.
"""
import hashlib
import json
import pathlib
import re
import struct
import sys

import numpy as np

SEED, T, D, H, K, V = 20251030, 256, 512, 2, 64, 64


def swish(x):
    return x / (1 + np.exp(-x))


def short_convolution(x, taps):
    """Causal, per channel: y_t = sum_j taps_j x_{t-3+j}."""
    padded = np.concatenate([np.zeros((3, x.shape[1])), x])
    return swish(sum(taps[:, j] * padded[j:j + len(x)] for j in range(4)))


def bf16(x):
    """Bits of the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def layer_inputs(words):
    rng = np.random.Generator(np.random.PCG64(SEED))
    linear = lambda rows, columns: rng.normal(0, 0.02, (rows, columns))
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    x = rng.normal(size=(len(vocabulary), D))[[vocabulary[word] for word in words]]
    x = x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-6)
    q, k, v = (short_convolution(x @ linear(D, H * width), rng.uniform(-0.5, 0.5, (H * width, 4))) for width in (K, K, V))
    g = x @ linear(D, V) @ linear(V, H * K)
    beta = 1 / (1 + np.exp(-(x @ linear(D, H))))
    A_log = np.log(rng.uniform(1, 16, H))
    dt = np.exp(rng.uniform(np.log(1e-3), np.log(0.1), (H, K)))
    dt_bias = dt + np.log(-np.expm1(-dt))
    heads = lambda tensor: tensor.reshape(1, len(words), H, -1)
    return {"q": ("BF16", bf16(heads(q))), "k": ("BF16", bf16(heads(k))), "v": ("BF16", bf16(heads(v))), "g": ("BF16", bf16(heads(g))),
            "beta": ("F32", beta.reshape(1, len(words), H).astype(np.float32)), "A_log": ("F32", A_log.astype(np.float32)),
            "dt_bias": ("F32", dt_bias.astype(np.float32))}


def write_safetensors(path, tensors, metadata):
    header, data = {"__metadata__": metadata}, b""
    for name, (dtype, array) in sorted(tensors.items(), key=lambda item: -item[1][1].itemsize):
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main(arguments):
    text = pathlib.Path(arguments[1] if len(arguments) > 1 else "/usr/share/common-licenses/GPL-3")
    output = pathlib.Path(arguments[2] if len(arguments) > 2 else pathlib.Path(__file__).with_name("kda_layer0.safetensors"))
    words = re.findall(r"\w+|[^\w\s]", text.read_text(encoding="utf-8").lower())[:T]
    if len(words) < T:
        sys.exit(f"{text} has {len(words)} words; {T} are needed")
    about = {"about": __doc__.split("\n\n")[2].replace("\n", " ").strip(),
             "about_text": f"first {T} words of {text.name}, sha256 {hashlib.sha256(text.read_bytes()).hexdigest()}",
             "about_generator": f"golden/recorded/make_dump.py, seed {SEED}, numpy {np.__version__}, hidden width {D}"}
    write_safetensors(output, layer_inputs(words), {"gate": "softplus", "beta": "value", "l2norm": "yes", "scale": repr(K**-0.5), **about})


if __name__ == "__main__":
    main(sys.argv)
