"""Judges kernels of a plug-in on a real CUDA device: cuda_plugin_test.py PROGRAM PLUGIN. The right one passes all that is
drawn of it, each wrong one gets the verdict that is due, and the run goes on. Ends with 77 (skipped) where there is no device."""
import json
import pathlib
import subprocess
import sys
import tempfile

program, plugin = (str(pathlib.Path(word).resolve()) for word in sys.argv[1:3])


def judged(kernel, *words):
    """(exit status, cases, output) of a run over one kernel."""
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run([program, "verify", "--plugin", plugin, "--kernel", kernel, "--threads", "2", "--shrink-seconds", "1", "--out", out,
                               *words], capture_output=True, text=True)
        log = pathlib.Path(out, "cases.jsonl")
        cases = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return done.returncode, cases, done.stdout + done.stderr


def expect(truth, text):
    if not truth:
        raise SystemExit(text)


status, cases, text = judged("cuda.recurrence", "--regime", "usual-decay", "--regime", "packed-*", "--regime", "grouped-*", "--regime", "extreme-*")
if cases and all(case["verdict"] == "not_supported" for case in cases):
    print("not run:", cases[0].get("detail"))
    sys.exit(77)
expect(status == 0, text)
passed = sum(case["verdict"] == "passed" for case in cases)
properties = {case["property"] for case in cases if case["verdict"] == "passed"}
expect({"agrees-with-the-oracle", "a-decode-chain-is-the-recurrence", "packed-equals-separate", "nothing-else-is-touched"} <= properties, text)
print(f"cuda.recurrence: {passed} of {len(cases)} cases passed, {len(properties)} laws")

for kernel, law, verdict, words in (
    ("cuda.writes_past_end", "nothing-else-is-touched", "failed_property", "wrote past the end of o"),
    ("cuda.changes_an_input", "inputs-are-unchanged", "failed_property", "beta"),
    ("cuda.illegal_access", "agrees-with-the-oracle", "crashed", "illegal memory access"),
    ("cuda.spins", "agrees-with-the-oracle", "timed_out", ""),
):
    status, cases, text = judged(kernel, "--property", law, "--regime", "usual-decay", "--call-timeout", "5")
    print(kernel, status, sorted({(case["verdict"], case.get("detail", "")[:90]) for case in cases}))
    expect(status == 1 and cases and all(words in case.get("detail", "") for case in cases if case["verdict"] != "not_supported"), text)
    expect({case["verdict"] for case in cases} - {"not_supported"} == {verdict}, text)
