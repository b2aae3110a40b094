#!/usr/bin/env python3
"""The report of a run as large as the full tier takes under 10 s and 5 MB.

    full_tier_report.py KDACHECK_PROGRAM [SECONDS]      exit 0: it does; 1: it does not

Runs the full tier for SECONDS (default 5), fills its log up to the number of cases that the tier plans with what ran, each round with seeds, and so
recipes, of its own, lets `verify --resume` put the results together, and reports them. Real cases, as many as there would be; but the first ones
of the tier, so that SECONDS decides how many regimes are among them. Counted is processor time, which does not depend on what else runs.
"""
import json
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import zlib

MOST_SECONDS, MOST_BYTES = 10, 5_000_000


def verify(program, folder, seconds, *more):
    ran = subprocess.run([program, "verify", "--tier", "full", "--shrink-seconds", "0", "--time-budget", str(seconds), "--out", folder, *more], capture_output=True, text=True)
    if ran.returncode != 4:
        raise SystemExit(f"verify ended with status {ran.returncode}, not at its time budget: {ran.stdout[-500:]}{ran.stderr}")
    return int(re.search(r"of (\d+) planned cases", ran.stdout).group(1))


def renewed(token, copy):
    """The same recipe with another seed."""
    head, recipe = token[:token.index(":k1,") + 1], token[token.index(":k1,") + 1:token.rindex(",") + 1]
    seed = re.search(r"seed=(\d+),", recipe)
    recipe = re.sub(r"seed=\d+,", "", recipe) + f"seed={(int(seed.group(1)) if seed else 0) ^ (copy << 33)},"
    return f"{head}{recipe}{zlib.crc32(recipe.encode()):08x}"


def main(program, seconds="5"):
    program = pathlib.Path(program).resolve()
    with tempfile.TemporaryDirectory() as place:
        run = pathlib.Path(place) / "run"
        planned = verify(program, run, seconds)
        log = run / "cases.jsonl"
        cases = [json.loads(line) for line in log.read_text().splitlines()]
        with log.open("a") as file:
            for number in range(planned - len(cases)):
                case = cases[number % len(cases)]
                if ":k1," in case["replay"]:
                    file.write(json.dumps({**case, "replay": renewed(case["replay"], number // len(cases) + 1)}) + "\n")
        verify(program, run, 1, "--resume")
        counted = json.loads((run / "report.json").read_text())["summary"]["cases"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([program, "report", run], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took, size = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, (run / "report.html").stat().st_size
        print(f"{counted} cases, {planned} planned by the full tier, {len(cases)} of them run: report in {took:.1f} s, {size / 1e6:.2f} MB")
    return 0 if counted > 0.95 * planned and took < MOST_SECONDS and size < MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
