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

ran, skipped = 0, []
for version, python in candidates.items():
    for framework in ("torch", "jax"):
        if subprocess.run([python, "-c", f"import {framework}, numpy"], capture_output=True).returncode != 0:
            skipped.append(f"{framework} on {version}")
            continue
        if framework == "torch":
            package = pathlib.Path(tests).parent / "python"
            laid = subprocess.run([python, "-c", LAYOUTS], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(package)})
            if laid.returncode != 0:
                raise SystemExit(f"torch on {version} does not hand over every layout:\n{laid.stderr}")
        with tempfile.TemporaryDirectory() as out:
            done = subprocess.run([program, "verify", "--python", f"framework_kernels:{framework}_recurrence", "--property", "*agree*-with-the-oracle",
                                   "--regime", "usual-decay", "--call-timeout", "120", "--threads", "1", "--out", out],
                                  capture_output=True, text=True, env={**os.environ, "KDACHECK_PYTHON": python, "PYTHONPATH": tests})
        if done.returncode != 0 or "PASSED: 1 of 1 kernels" not in done.stdout:
            raise SystemExit(f"{framework} on {version} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        print(f"{framework} on {version}: judged")
        ran += 1
print(f"{ran} judged, {len(skipped)} skipped: {', '.join(skipped) or 'none'}")
sys.exit(0 if ran else 77)
