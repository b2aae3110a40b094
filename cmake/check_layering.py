#!/usr/bin/env python3
"""Holds the rules on who may include whom, and what no source may contain.

    check_layering.py ROOT      exit 0: all rules hold; 1: each breach on a line `file:line: sentence`; 2: nothing to check

reference <- kernels/kernel.hpp <- {golden, properties} <- reports. Kernels see the vocabulary of reference/, never its oracle.
CUDA files see no Boost, Eigen, RapidCheck or Catch2.
"""
import pathlib
import re
import subprocess
import sys

FOLDERS = ("reference", "kernels", "properties", "golden", "reports")
SOURCES = (".cpp", ".hpp", ".h", ".c", ".cu", ".cuh")
TEXTS = SOURCES + (".py", ".md", ".txt", ".cmake", ".sh", "")
LONGEST = 400  # lines

MAY_INCLUDE = {
    "reference": {"reference"},
    "kernels": {"reference", "kernels"},
    "properties": {"reference", "kernels", "properties"},
    "golden": {"reference", "kernels", "properties", "golden"},
    "reports": set(FOLDERS),
}
# Besides what a problem is: files and checksums, which say nothing of what is right.
VOCABULARY = {"problem.hpp", "tensor.hpp", "number_format.hpp", "safetensors.hpp", "atomic_file.hpp", "file_calls.hpp", "sha256.hpp"}
# What golden and properties may know of kernels/: its interface, not one kernel's inside.
INTERFACE = {"kernel.hpp", "contract.hpp"}
NOT_IN_CUDA = re.compile(r"^(boost|Eigen|rapidcheck|catch2)(/|\.h)", re.IGNORECASE)
FAST_MATH = re.compile(r"-f(fast-math|associative-math|finite-math-only|unsafe-math-optimizations|reciprocal-math)\b|-Ofast\b|--use_fast_math\b"
                       r"|-ffp-contract=(fast|on)\b|#pragma\s+GCC\s+optimize")
PRIVATE_PATH = re.compile(r"(?<![\w.])/(work|root|home|Users|mnt|tmp/bash_jobs)/")
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')


def tracked(root):
    """Files under version control or about to be; all files where there is no git."""
    try:
        listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z", "-co", "--exclude-standard"], capture_output=True, check=True).stdout
        names = [name for name in listed.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    return sorted(name for name in names if (root / name).is_file())


def included_path(root, file, target):
    """A quoted include, relative to the root; None where it names no file of ours."""
    for start in (file.parent, root, *(root / folder for folder in FOLDERS)):
        path = (start / target).resolve()
        if path.is_file() and path.is_relative_to(root):
            return path.relative_to(root)
    return None


def include_breaches(root, name, number, quote, target):
    folder = name.parts[0]
    is_test = "tests" in name.parts
    if name.suffix in (".cu", ".cuh") and NOT_IN_CUDA.match(target):
        yield f"CUDA code includes <{target}>"
    included = included_path(root, root / name, target) if quote == '"' else None
    if included is None or folder not in MAY_INCLUDE or included.parts[0] not in FOLDERS:
        return
    to = included.parts[0]
    if to not in MAY_INCLUDE[folder]:
        yield f"{folder}/ includes {included}: the arrow points the other way"
    if folder == "kernels" and to == "reference" and not is_test and included.name not in VOCABULARY:
        yield f"a kernel includes {included}: of reference/ it may see only {', '.join(sorted(VOCABULARY))}"
    within = included.parts[1:]
    inside_a_kernel = to == "kernels" and len(within) > 1 and within[0] in ("cpu", "cuda")
    if folder in ("golden", "properties") and inside_a_kernel and not is_test:
        yield f"{folder}/ includes {included}: of kernels/cpu and kernels/cuda it may see only {', '.join(sorted(INTERFACE))}"
    if name.suffix in (".cu", ".cuh") and to == "reference" and included.name == "safetensors.hpp":
        yield "CUDA code includes reference/safetensors.hpp"


def breaches(root):
    root = root.resolve()
    checked = 0
    found = []
    for name in map(pathlib.Path, tracked(root)):
        if name.suffix not in TEXTS:
            continue
        try:
            lines = (root / name).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        own = name.parts[:1] == ("cmake",) and re.search("layering|strict", name.name)  # these checkers and their tests name what they forbid
        if name.suffix in SOURCES:
            checked += 1
            if len(lines) > LONGEST:
                found.append(f"{name}:{len(lines)}: has {len(lines)} lines, more than {LONGEST}")
        for number, line in enumerate(lines, 1):
            include = INCLUDE.match(line) if name.suffix in SOURCES else None
            if include:
                found += [f"{name}:{number}: {text}" for text in include_breaches(root, name, number, *include.groups())]
            if own:
                continue
            if FAST_MATH.search(line) and name.suffix != ".md":
                found.append(f"{name}:{number}: asks the compiler for inexact floating point")
            if PRIVATE_PATH.search(line):
                found.append(f"{name}:{number}: names a private path")
    return checked, found


def main(arguments):
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    checked, found = breaches(pathlib.Path(arguments[1]))
    for line in found:
        print(line)
    if checked == 0:
        print("layering: no source file found", file=sys.stderr)
        return 2
    print(f"layering: {checked} sources checked, {len(found)} breaches")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
