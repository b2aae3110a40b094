#!/usr/bin/env python3
"""Holds the commands of a build to strict floating point: each operation rounded once, as written.

    check_strict.py BUILD      exit 0: all are strict; 1: each breach on a line; 2: no build there

Reads compile_commands.json and build.ninja of the build folder. A C++ file of this project needs -ffp-contract=off, for GCC contracts in
C++ unless told not to; no command may carry a flag that lets a compiler change, drop or rearrange operations, whatever comes after it: some
of them link a start-up routine that flushes subnormals. (What the bounds of the oracle need, it tests besides: reference/strict_arithmetic.hpp.)
"""
import json
import pathlib
import re
import shlex
import sys

INEXACT = re.compile(r"^-Ofast$|^-f(fast-math|associative-math|reciprocal-math|finite-math-only|unsafe-math-optimizations|no-signed-zeros|cx-limited-range)$"
                     r"|^-ffp-contract=(fast|on)$|^-mfpmath=387$|^--?use_fast_math$")


def file_breaches(file, arguments):
    yield from (f"{file}: {argument}" for argument in arguments if INEXACT.match(argument))
    contraction = [argument for argument in arguments if argument.startswith("-ffp-contract=")]
    if file.suffix == ".cpp" and file.name != "catch_main.cpp" and (not contraction or contraction[-1] != "-ffp-contract=off"):
        yield f"{file}: products and sums may be contracted"


def link_breaches(text):
    """Flags in build.ninja: LINK_FLAGS, FLAGS and commands of its own."""
    for number, line in enumerate(text.splitlines(), 1):
        yield from (f"build.ninja:{number}: {word}" for word in line.split() if INEXACT.match(word))


def main(arguments):
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    build = pathlib.Path(arguments[1])
    try:
        commands = json.loads((build / "compile_commands.json").read_text())
        ninja = (build / "build.ninja").read_text() if (build / "build.ninja").exists() else ""
    except OSError as error:
        print(f"strict: {error}", file=sys.stderr)
        return 2
    found = [text for entry in commands for text in file_breaches(pathlib.Path(entry["file"]), shlex.split(entry["command"]))]
    found += link_breaches(ninja)
    for line in found:
        print(line)
    print(f"strict: {len(commands)} commands checked, {len(found)} breaches")
    return 1 if found else 0 if commands else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
