"""Judges a PyTorch and a JAX function, forward and by autograd, with every Python from 3.10 to 3.13 and Debian's own that has the framework:
frameworks_test.py PROGRAM. Ends with 77 (skipped) where no interpreter has one."""
import os
import pathlib
import subprocess
import sys
import tempfile

import interpreters

program = str(pathlib.Path(sys.argv[1]).resolve())
tests = str(pathlib.Path(__file__).resolve().parent)
candidates = dict(interpreters.found())
if os.path.exists("/usr/bin/python3"):
    candidates["Debian's python3"] = "/usr/bin/python3"
if os.environ.get("KDACHECK_PYTHON"):
    candidates["KDACHECK_PYTHON"] = os.environ["KDACHECK_PYTHON"]

# Results in every memory layout that PyTorch calls contiguous, or does not.
LAYOUTS = """
import torch
from kdacheck.frameworks import Torch
whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
for x in (whole.t(), whole[:, 2], whole[::2, ::3], whole.as_strided((1, 1), (1, 64), 5), whole[:0], whole.bfloat16().t()):
    raw = Torch("cpu").raw(x)
    assert raw.shape == tuple(x.shape) and len(raw.data) == x.numel() * x.element_size(), (x, raw)
    if x.numel():
        assert torch.frombuffer(bytearray(raw.data), dtype=x.dtype).reshape(x.shape).equal(x), (x, raw)
"""

# Every format there and back bit for bit, and the memory of one call reused by the next: DLPack copies nothing on the CPU.
ROUND_TRIPS = """
import numpy as np
from kdacheck.frameworks import Jax
from kdacheck.tensors import Raw
jax = Jax("cpu")
for dtype, width in (("BF16", 2), ("F16", 2), ("F32", 4)):
    for shape in ((2, 3, 5), (1,), (0, 4)):
        count = int(np.prod(shape))
        first, second = (Raw(dtype, shape, np.random.default_rng(seed).integers(1, 60, count * width, np.uint8).tobytes()) for seed in (1, 2))
        places = []
        for raw in (first, second):
            x = jax.tensor("q", raw)
            assert str(x.dtype) == {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype] and x.shape == shape, x
            assert jax.raw(x) == raw, (x, raw)
            places.append(x.unsafe_buffer_pointer() if count else None)
        assert dtype == "BF16" or places[0] == places[1], places
assert jax.tensor("cu_seqlens", Raw("I64", (2,), np.array([0, 7]).tobytes())).tolist() == [0, 7]
assert jax.tensor("cu_seqlens", Raw("I64", (2,), np.array([0, 9]).tobytes())).tolist() == [0, 9]
x = jax.tensor("v", Raw("F32", (2, 3), np.arange(6, dtype=np.float32).tobytes()))
assert jax.raw(x.T).data == np.arange(6, dtype=np.float32).reshape(2, 3).T.tobytes()
"""

ran, skipped = 0, []
for version, python in candidates.items():
    for framework in ("torch", "jax"):
        if subprocess.run([python, "-c", f"import {framework}, numpy"], capture_output=True).returncode != 0:
            skipped.append(f"{framework} on {version}")
            continue
        package = pathlib.Path(tests).parent / "python"
        handed = subprocess.run([python, "-c", {"torch": LAYOUTS, "jax": ROUND_TRIPS}[framework]], capture_output=True, text=True,
                                env={**os.environ, "PYTHONPATH": str(package)})
        if handed.returncode != 0:
            raise SystemExit(f"{framework} on {version} does not hand over every tensor:\n{handed.stderr}")
        functions = {"torch": ["torch_recurrence"], "jax": ["jax_recurrence", "jax_bf16_recurrence"]}[framework]
        chosen = [word for function in functions for word in ("--python", f"framework_kernels:{function}")]
        with tempfile.TemporaryDirectory() as out:
            done = subprocess.run([program, "verify", *chosen, "--property", "*agree*-with-the-oracle", "--regime", "usual-decay",
                                   "--call-timeout", "120", "--threads", "1", "--out", out],
                                  capture_output=True, text=True, env={**os.environ, "KDACHECK_PYTHON": python, "PYTHONPATH": tests})
        if done.returncode != 0 or f"PASSED: {len(functions)} of {len(functions)} kernels" not in done.stdout:
            raise SystemExit(f"{framework} on {version} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        print(f"{framework} on {version}: judged")
        ran += 1
print(f"{ran} judged, {len(skipped)} skipped: {', '.join(skipped) or 'none'}")
sys.exit(0 if ran else 77)
