#!/usr/bin/env python3
"""The starter set, loaded by Python's safetensors with NumPy and torch; the example in README, run as it stands.

    loading.py ROOT VENV      exit 0: all hold; 1: one does not; 77: not run, as the package cannot be had

VENV is made on the first call, on top of the system's NumPy and torch, with safetensors and jsonschema from PyPI.
"""
import hashlib
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
    if subprocess.run([python, "-c", "import safetensors, jsonschema"], capture_output=True).returncode != 0:
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "safetensors", "jsonschema"], check=True, timeout=120)
    return python


def load_all(root):
    from safetensors.numpy import load_file
    import jsonschema
    import numpy as np
    try:
        import torch
        from safetensors.torch import load_file as load_torch
    except ImportError:
        torch = None
    counts = {"numpy": 0, "torch": 0, "without bf16 in NumPy": 0, "without torch": 0}
    schema = jsonschema.Draft202012Validator(json.loads((root / "golden" / "manifest.schema.json").read_text()))
    hold_schema_to_breaches(schema, root)
    starter, within = root / "golden" / "starter", 0
    index = dict(reversed(line.split("  ")) for line in (starter / "index.sha256").read_text().splitlines())
    folders = sorted(folder for folder in starter.iterdir() if folder.is_dir())
    assert {f"{folder.name}/manifest.json" for folder in folders} == set(index), "index.sha256 does not name what is there"
    for folder in folders:
        assert hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() == index[f"{folder.name}/manifest.json"], folder
        manifest = json.loads((folder / "manifest.json").read_text())
        schema.validate(manifest)
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
        within += recurrence_is_within_bounds(torch, manifest, tensors, folder.name)
    print("; ".join(f"{count} cases {what}" for what, count in counts.items()))
    assert counts["numpy"] > 10, counts
    if torch is not None:
        print(f"a recurrence in PyTorch and fp32 is within the stored bounds of all {within} cases that it computes")
        assert within > 50, within
    run_readme(root, torch)


def hold_schema_to_breaches(schema, root):
    """The schema file refuses what it should."""
    manifest = json.loads((root / "golden/starter/zero-keys.bf16.1/manifest.json").read_text())
    assert schema.is_valid(manifest)
    for change in (lambda m: m.pop("token"), lambda m: m.update(schema_version=3), lambda m: m.update(colour="blue"), lambda m: m["tensors"][0].update(sha256="00"),
                   lambda m: m["tensors"][0].update(dtype="F8"), lambda m: m["bounds"][0].pop("contract"), lambda m: m["contents"].update(states=1)):
        broken = json.loads(json.dumps(manifest))
        change(broken)
        assert not schema.is_valid(broken), "the schema takes a manifest that breaks it"


def recurrence_is_within_bounds(torch, manifest, case, name):
    """A consumer: KDA token by token in fp32, on the cases whose gate and beta are plain values. 1 if it was one."""
    options = manifest["options"]
    if "a" in case or "cu_seqlens" in case or (options["gate"], options["beta"], options["l2norm"]) != ("log_decay", "value", "no"):
        return 0
    q, k, v, g, beta = (case[label].float() for label in ("q", "k", "v", "g", "beta"))
    B, T, H, K = k.shape
    HV, V = v.shape[2:]
    q, k = (x.repeat_interleave(HV // H, dim=2) for x in (q, k))
    S = case["initial_state"] if "initial_state" in case else torch.zeros(B, HV, K, V)
    for t in range(T):
        S = g[:, t].exp()[..., None] * S
        S = S + (beta[:, t][..., None] * k[:, t])[..., None] * (v[:, t] - torch.einsum("bhk,bhkv->bhv", k[:, t], S))[..., None, :]
        o = torch.einsum("bhk,bhkv->bhv", q[:, t] * float(options["scale"]), S).double()
        error = (o - case["o.high"][:, t] - case["o.low"][:, t]).abs()
        assert bool((error <= case["o.bound.fp32"][:, t][..., None]).all()), (name, t)
    error = (S.double() - case["final_state.high"] - case["final_state.low"]).abs()
    assert bool((error <= case["final_state.bound.fp32"][..., None]).all()), name
    return 1


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
