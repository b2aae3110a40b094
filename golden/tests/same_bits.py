#!/usr/bin/env python3
"""Golden cases have the same bits for any number of threads, with any mathematical library, and from a program built for another processor.

    same_bits.py KDACHECK_PROGRAM POISONED_LIBM [OTHER_PROGRAM...]      exit 0: all are the same; 1: one is not

POISONED_LIBM is poisoned_libm.c as a shared library: its exponentials and logarithms are NaN. OTHER_PROGRAM: kdacheck built with another
KDACHECK_ARCH, whose vectors are shorter and which may lack fused multiply-add.
"""
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile

# Every regime with all that a case can hold, every hard case, a chain of states, and a shape large enough to be shared out among threads.
SETS = [["--dtype", "bf16", "--intermediates", "8", "--shape", "24,16,16"], ["--found"], ["--regime", "usual-decay", "--seed", "2", "--states"],
        ["--regime", "many-heads-and-batches", "--regime", "near-identical-keys", "--seed", "5", "--dtype", "fp16", "--shape", "160,64,64"]]


def generate(program, folder, **environment):
    for chosen in SETS:
        made = subprocess.run([program, "golden", "generate", folder, *chosen], env={**os.environ, **environment}, capture_output=True, text=True)
        if made.returncode != 0:
            raise SystemExit(f"golden generate {' '.join(chosen)} under {environment} ended with status {made.returncode}: {made.stdout[-500:]}{made.stderr}")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


def main(program, poisoned, *others):
    variants = [("1 thread", program, {"OMP_NUM_THREADS": "1"}), ("2 threads", program, {"OMP_NUM_THREADS": "2"}), ("4 threads", program, {"OMP_NUM_THREADS": "4"}),
                ("a mathematical library for processors without AVX2 and FMA", program, {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F"}),
                ("a mathematical library of which nothing is true", program, {"LD_PRELOAD": str(pathlib.Path(poisoned).resolve())}),
                *((f"the program {other}", other, {}) for other in others)]
    failed = False
    with tempfile.TemporaryDirectory() as place:
        first = None
        for at, (what, maker, environment) in enumerate(variants):
            made = generate(maker, pathlib.Path(place) / str(at), **environment)
            first = first or made
            differing = [name for name in sorted({*first, *made}) if first.get(name) != made.get(name) and (maker == program or name.endswith(".safetensors"))]
            print(f"{what}: {len(made)} files, {len(differing)} differ from those of 1 thread", *differing[:5])
            failed = failed or bool(differing) or len(made) < 400
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
