"""Builds the wheel, installs it into a fresh environment of every Python from 3.10 to 3.13 that is found, and judges a
function through it, with nothing of the repository's package on the path: wheel_test.py PROGRAM PACKAGE_FOLDER.
Ends with 77 (skipped) where no interpreter is found or no package index can be reached."""
import os
import pathlib
import subprocess
import sys
import tempfile

import interpreters

program, package = (str(pathlib.Path(word).resolve()) for word in sys.argv[1:3])
tests = str(pathlib.Path(__file__).resolve().parent)
NO_INDEX = ("No matching distribution", "Could not find a version", "Temporary failure in name resolution", "Failed to establish a new connection")


class Unreachable(Exception):
    """No package index."""


def run(*words, **options):
    done = subprocess.run(words, capture_output=True, text=True, **options)
    if done.returncode != 0:
        text = done.stdout + done.stderr
        if any(sign in text for sign in NO_INDEX):
            raise Unreachable(text[-300:])
        raise SystemExit(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{text}")
    return done.stdout


def judged(version, python, folder):
    place = folder / version
    run(python, "-m", "venv", str(place / "venv"))
    inside = str(place / "venv/bin/python")
    # a copy: a build leaves files beside the sources
    run("cp", "-r", package, str(place / "source"))
    run(inside, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(place), str(place / "source"))
    (wheel,) = place.glob("kdacheck-*-py3-none-any.whl")
    run(inside, "-m", "pip", "install", "--quiet", str(wheel))
    environment = {**os.environ, "KDACHECK_PYTHON": inside, "KDACHECK_PYTHON_PACKAGE": str(place / "nothing"), "PYTHONPATH": tests}
    where = run(inside, "-c", "import kdacheck; print(kdacheck.__file__)", env=environment, cwd=place).strip()
    assert where.startswith(str(place / "venv")), where
    text = run(program, "verify", "--python", "cheating_kernels:honest", "--property", "agrees-with-the-oracle", "--regime", "gaussian-keys",
               "--regime", "usual-decay", "--out", str(place / "results"), env=environment, cwd=place)
    assert "PASSED: 1 of 1 kernels" in text, text
    print(f"{version}: {wheel.name} installed and judged by {python}")


with tempfile.TemporaryDirectory() as name:
    there, ran, skipped = interpreters.found(), 0, []
    for version in interpreters.VERSIONS:
        if version not in there:
            skipped.append(f"{version} (no interpreter)")
            continue
        try:
            judged(version, there[version], pathlib.Path(name))
            ran += 1
        except Unreachable as reason:
            skipped.append(f"{version} (no package index: {reason})")
    print(f"{ran} interpreters, {len(skipped)} skipped: {', '.join(skipped) or 'none'}")
    sys.exit(0 if ran else 77)
