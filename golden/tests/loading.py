#!/usr/bin/env python3
"""The starter set, loaded by Python's safetensors with NumPy and torch; the example in README, run as it stands.

    loading.py ROOT VENV      exit 0: all hold; 1: one does not; 77: not run, as the package cannot be had

VENV is made on the first call, on top of the system's NumPy and torch, with safetensors from PyPI.
"""
import json
import pathlib
import re
import subprocess
import sys
import venv


def python_with_safetensors(place):
    python = place / "bin" / "python"
    if not python.exists():
        venv.EnvBuilder(system_site_packages=True, with_pip=True).create(place)
    if subprocess.run([python, "-c", "import safetensors"], capture_output=True).returncode != 0:
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "safetensors"], check=True, timeout=120)
    return python


def load_all(root):
    from safetensors.numpy import load_file
    import numpy as np
    try:
        import torch
        from safetensors.torch import load_file as load_torch
    except ImportError:
        torch = None
    counts = {"numpy": 0, "torch": 0, "without bf16 in NumPy": 0, "without torch": 0}
    for folder in sorted((root / "golden" / "starter").iterdir()):
        manifest = json.loads((folder / "manifest.json").read_text())
        shapes = {tensor["name"]: tensor["shape"] for tensor in manifest["tensors"]}
        dtypes = {tensor["dtype"] for tensor in manifest["tensors"]}
        if "BF16" in dtypes:
            counts["without bf16 in NumPy"] += 1
        else:
            tensors = load_file(folder / "tensors.safetensors")
            assert {name: list(x.shape) for name, x in tensors.items()} == shapes, folder
            assert all(np.isfinite(x).all() for name, x in tensors.items() if name.startswith("o.")), folder
            counts["numpy"] += 1
        if torch is None:
            counts["without torch"] += 1
            continue
        tensors = load_torch(folder / "tensors.safetensors")
        assert {name: list(x.shape) for name, x in tensors.items()} == shapes, folder
        assert all(bool(torch.isfinite(x).all()) for name, x in tensors.items() if name.startswith("o.")), folder
        counts["torch"] += 1
    print("; ".join(f"{count} cases {what}" for what, count in counts.items()))
    assert counts["numpy"] > 10, counts
    run_readme(root, torch)


def run_readme(root, torch):
    """The example checks a PyTorch function: right as it stands, and it must notice one that is wrong."""
    found = re.search(r"```python\n(# golden example.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert found, "README has no golden example"
    example = found.group(1)
    assert len(example.strip().splitlines()) <= 12, "the example is to be about ten lines"
    if torch is None:
        print("README's example not run: no torch")
        return
    exec(compile(example, "README.md", "exec"), {})
    wrong = example.replace("* beta[", "* 1.0001 * beta[")
    assert wrong != example
    try:
        exec(compile(wrong, "README.md, made wrong", "exec"), {})
    except AssertionError:
        print("README's example holds, and notices a beta that is off by 1e-4")
        return
    raise SystemExit("README's example does not notice a wrong beta")


def main(root, place):
    if place == "--inside":
        import os
        os.chdir(root)
        load_all(pathlib.Path(root))
        return 0
    try:
        python = python_with_safetensors(pathlib.Path(place))
    except (subprocess.SubprocessError, OSError) as trouble:
        print("not run: safetensors cannot be had:", trouble)
        return 77
    return subprocess.run([python, __file__, root, "--inside"]).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
