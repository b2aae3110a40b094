#!/usr/bin/env python3
"""The certified tiers answer with the same bits whatever the width of the vectors that they were built for.

    same_bits.py PROGRAM OTHER      certified_bits.cpp, built twice; exit 0: built apart and the same; 1: otherwise
"""
import subprocess
import sys


def printed(program):
    lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    return lines[:-1], lines[-1]


def main(program, other):
    (answers, lanes), (others, other_lanes) = printed(program), printed(other)
    differing = [f"{one}\n{two}" for one, two in zip(answers, others) if one != two]
    print(f"{len(answers)} answers with {lanes}, {len(others)} with {other_lanes}: {len(differing)} differ", *differing[:3], sep="\n")
    return 0 if answers and len(answers) == len(others) and not differing and lanes != other_lanes else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
