#!/usr/bin/env python3
"""Registers, stack (where spills lie) and static shared memory of every CUDA kernel, as a Markdown table.

    reports/cuda/resources.py build/kernels/cuda/libkdacheck_cuda.so > reports/cuda/resources.md

Needs cuobjdump (of the CUDA toolkit; Triton's package has one too) in PATH or in CUOBJDUMP, and c++filt. Exit 3 if one is missing.
"""
import os
import re
import shutil
import subprocess
import sys


def program(name):
    found = shutil.which(os.environ.get(name.upper(), name))
    if found is None:
        sys.exit(print(f"{name} is not here", file=sys.stderr) or 3)
    return found


def readable(mangled):
    """Name and template arguments: what tells one kernel from another."""
    names = subprocess.run([program("c++filt")], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout.splitlines()
    plain = []
    for name in names:
        name = re.sub(r"\((?:bool|int|unsigned int|[\w:]*GateCode)\)", "", name.replace("(anonymous namespace)::", ""))
        name = re.sub(r"\(kdacheck::cuda::[^()]*\)\s*$|\((?:[^()]|\([^()]*\))*\)\s*$", "", name)
        plain.append(re.sub(r"^void ", "", name).replace("kdacheck::cuda::", "").replace("|", "\\|"))
    return plain


def main(library):
    listing = subprocess.run([program("cuobjdump"), "--dump-resource-usage", library], capture_output=True, text=True, check=True).stdout
    rows, file = [], ""
    for line in listing.splitlines():
        if found := re.match(r"\s*identifier = (.*)", line):
            file = os.path.basename(found[1])
        elif found := re.match(r"\s*Function ([^:]+):", line):
            function = found[1]
        elif found := re.match(r"\s*REG:(\d+) STACK:(\d+) SHARED:(\d+)", line):
            rows.append((file, function, *map(int, found.groups())))
    names = readable([row[1] for row in rows])
    print("# CUDA kernels: registers, stack and shared memory\n\nOf a thread, of a thread, and of a block; sm_90a. The stack holds what is spilled. Shared memory that is asked for at the launch is not\n"
          "in it: the head of each file tells of it; 1024 bytes of a block are the system's own. Made by\n\n    reports/cuda/resources.py build/kernels/cuda/libkdacheck_cuda.so > reports/cuda/resources.md\n\n"
          "| file | kernel | registers | stack, bytes | static shared, bytes |\n|---|---|--:|--:|--:|")
    for row, name in sorted(zip(rows, names), key=lambda pair: (pair[0][0], pair[1])):
        print(f"| {row[0]} | `{name}` | {row[2]} | {row[3]} | {row[4]} |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    main(sys.argv[1])
