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
    starter, consumed = root / "golden" / "starter", [0, 0, 0, 0]
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
        consumed = [sum(pair) for pair in zip(consumed, recurrence_is_within_bounds(torch, manifest, tensors, folder.name))]
    print("; ".join(f"{count} cases {what}" for what, count in counts.items()))
    assert counts["numpy"] > 10, counts
    if torch is not None:
        within, gradients, wrong, noticed = consumed
        print(f"a recurrence in PyTorch and fp32 is within the stored bounds of all {within} cases that it computes, autograd within those of all "
              f"{gradients} gradients; an error of one part in 256 breaks the bounds of {noticed} of {wrong} of them")
        assert within > 50 and gradients > 500 and noticed > 0.9 * wrong, consumed
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
    """A consumer: KDA token by token in fp32, on the cases whose gate and beta are plain values. 
    Counts: itself, its gradients, those that were made wrong by one part in 256, and those of which the bounds then notice it."""
    options = manifest["options"]
    if "a" in case or "cu_seqlens" in case or (options["gate"], options["beta"], options["l2norm"]) != ("log_decay", "value", "no"):
        return 0, 0, 0, 0
    leaves = {label: case[label].float().requires_grad_() for label in ("q", "k", "v", "g", "beta", "initial_state") if label in case}
    q, k, v, g, beta = (leaves[label] for label in ("q", "k", "v", "g", "beta"))
    B, T, H, K = k.shape
    HV, V = v.shape[2:]
    q, k = (x.repeat_interleave(HV // H, dim=2) for x in (q, k))
    S, loss = leaves.get("initial_state", torch.zeros(B, HV, K, V)), torch.zeros(())
    for t in range(T):
        S = g[:, t].exp()[..., None] * S
        S = S + (beta[:, t][..., None] * k[:, t])[..., None] * (v[:, t] - torch.einsum("bhk,bhkv->bhv", k[:, t], S))[..., None, :]
        o = torch.einsum("bhk,bhkv->bhv", q[:, t] * float(options["scale"]), S)
        error = (o.detach().double() - case["o.high"][:, t] - case["o.low"][:, t]).abs()
        assert bool((error <= case["o.bound.fp32"][:, t][..., None]).all()), (name, t)
        loss = loss + ((o * case["do"][:, t].float()).sum() if "do" in case else 0)
    loss = loss + ((S * case["dht"]).sum() if "dht" in case else 0)
    error = (S.detach().double() - case["final_state.high"] - case["final_state.low"]).abs()
    assert bool((error <= case["final_state.bound.fp32"][..., None]).all()), name
    if not loss.requires_grad:
        return 1, 0, 0, 0
    loss.backward()
    right = {label: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for label, leaf in leaves.items()}
    assert not (broken := broken_gradients(case, right)), (name, broken)
    wrong = {label: gradient * (1 + 2**-8) for label, gradient in right.items() if bool((gradient != 0).any())}
    return 1, len(right), len(wrong), len(broken_gradients(case, wrong))


def broken_gradients(case, gradients):
    """The gradients that are off by more than their stored bound."""
    broken = []
    for label, gradient in gradients.items():
        bound = case.get(f"d{label}.bound.fp32.recurrence")
        if bound is None:
            continue
        error = (gradient.double() - case[f"d{label}.high"] - case[f"d{label}.low"]).abs()
        if not bool((error <= bound.reshape(bound.shape + (1,) * (error.dim() - bound.dim()))).all()):
            broken.append(label)
    return broken


def run_readme(root, torch):
    """The example checks a PyTorch function: right as it stands, and it must notice one that is wrong."""
    found = re.search(r"```python\n(# golden example.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert found, "README has no golden example"
    example = found.group(1)
    assert len(example.strip().splitlines()) <= 13, "the example is to be about ten lines"
    if torch is None:
        print("README's example not run: no torch")
        return
    exec(compile(example, "README.md", "exec"), {})
    said = []
    for right, wrong in (("* beta[", "* 1.0001 * beta["), ('"final_state": S[None]', '"final_state": S[None] + 0.1'), ("o.append(torch", "o.append(float('nan') * torch")):
        spoilt = example.replace(right, wrong)
        assert spoilt != example, right
        try:
            exec(compile(spoilt, "README.md, made wrong", "exec"), {})
        except SystemExit as refusal:
            said.append(str(refusal))
    assert [sentence.split(" is outside its bound in ")[0] for sentence in said] == ["o", "final_state", "o"], said
    assert all(re.search(r"in \d+ of \d+ elements, first \[[0-9, ]+\]: error \S+, bound \S+$", sentence) for sentence in said), said
    print("README's example holds, and names the tensor that a wrong beta, a wrong state or NaN puts outside:", said[0])


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
