"""Judges kernels of a plug-in on a real CUDA device: cuda_plugin_test.py PROGRAM PLUGIN. The right one passes all that is
drawn of it, each wrong one gets the verdict that is due, and the run goes on. Ends with 77 (skipped) where there is no device."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

program, plugin = (str(pathlib.Path(word).resolve()) for word in sys.argv[1:3])
tests = str(pathlib.Path(__file__).resolve().parent)
python = os.environ.get("KDACHECK_PYTHON", "python3")


def judged(kernel, *words, source=("--plugin", plugin)):
    """(exit status, cases, output) of a run over one kernel."""
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run([program, "verify", *source, "--kernel", kernel, "--threads", "2", "--shrink-seconds", "1", "--out", out, *words],
                              capture_output=True, text=True, env={**os.environ, "PYTHONPATH": f"{tests}:{os.environ.get('PYTHONPATH', '')}"})
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


def now_and_then(kernel, words, source, *choice):
    """Crashes where T is odd and nowhere else: a fresh process goes on."""
    status, cases, text = judged(kernel, "--property", "agrees-with-the-oracle", *choice, source=source)
    odd = [case for case in cases if int(re.search(r",T=(\d+)", case["replay"])[1]) % 2]
    even = [case for case in cases if case not in odd]
    print(kernel, status, f"{len(odd)} crashed, {len(even)} passed", {case.get("detail", "")[:200] for case in odd})
    expect(status == 1 and odd and even, text)
    expect(all(case["verdict"] == "crashed" and words in case["detail"] for case in odd), text)
    expect(all(case["verdict"] == "passed" for case in even), text)


now_and_then("cuda.illegal_now_and_then", "illegal memory access", ("--plugin", plugin), "--regime", "every-length-16", "--regime", "usual-decay",
             "--regime", "grouped-*", "--regime", "extreme-*")
has_torch = subprocess.run([python, "-c", "import torch, triton; assert torch.cuda.is_available()"], capture_output=True)
if has_torch.returncode != 0:
    print("not run: Triton on the device: no PyTorch and Triton for", python)
else:
    now_and_then("tests.triton_illegal", "illegal memory access", ("--python", "cuda_kernels:triton_illegal"), "--regime", "every-length-16",
                 "--regime", "usual-decay")
    now_and_then("tests.torch_assert", "device-side assert", ("--python", "cuda_kernels:torch_assert"), "--regime", "every-length-16",
                 "--regime", "usual-decay")
