#!/usr/bin/env python3
"""Whether the reports in this folder were made from the sources in the tree.

    stale.py ROOT [--record]      exit 0: they were (or: noted); 5: stale; 1: a report is missing
"""
import hashlib
import pathlib
import sys

MADE_FROM = ("kernels/cpu", "properties", "reference")
REPORTS = ("summary.md", "drift.txt", "figures/phase.svg", "figures/drift.svg", "figures/spectra.svg")


def digest(root):
    """Of the names and contents of all sources that a report depends on; tests and benchmarks do not change one."""
    total = hashlib.sha256()
    for path in sorted(path for folder in MADE_FROM for path in (root / folder).rglob("*")):
        name = path.relative_to(root)
        if path.suffix in (".cpp", ".hpp") and not {"tests", "bench"} & set(name.parts):
            total.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()


def main(root, record=None):
    root = pathlib.Path(root)
    folder = root / "reports" / "cpu"
    missing = [name for name in REPORTS if not (folder / name).is_file()]
    if missing:
        print("missing in reports/cpu:", *missing)
        return 1
    mark = folder / "sources.sha256"
    if record:
        mark.write_text(digest(root) + "\n")
        return 0
    if not mark.is_file():
        print("missing in reports/cpu: sources.sha256")
        return 1
    if mark.read_text().strip() == digest(root):
        print("reports/cpu was made from these sources")
        return 0
    print("stale: kernels/cpu, properties or reference have changed since reports/cpu was made; reports/cpu/make.sh makes it anew")
    return 5


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
