"""Condenses result folders of `verify` into one small file of evidence: evidence.py OUT.json "key=value;..." FOLDER...

Per kernel: contract, verdicts, the largest error / bound that passed a comparison with the oracle, and of every law that
failed on a tensor the regimes and its worst case: place, figures, and the smallest recipe that shows it, to replay. Of two
FOLDERs that judged one kernel the later one's cases replace the same cases of the earlier one."""
import collections
import json
import math
import pathlib
import sys

COMPARISONS = ("agrees-with-the-oracle", "gradients-agree-with-the-oracle")


def ratio(case):
    """error / bound as a number; what is not one ranks last."""
    value = float(str(case.get("bound_util", 0)).replace("Infinity", "inf"))
    return -1 if math.isnan(value) else value


def kernels_of(folders):
    kernels, cases = {}, []
    for folder in folders:
        kernels |= {kernel["name"]: kernel for kernel in json.loads((folder / "report.json").read_text())["kernels"]}
        run = [json.loads(line) for line in (folder / "cases.jsonl").read_text().splitlines()]
        again = {case["replay"] for case in run}
        cases = [case for case in cases if case["replay"] not in again] + run
    for kernel in kernels.values():
        mine = [case for case in cases if case["kernel"] == kernel["name"]]
        passed = [ratio(case) for case in mine if case["verdict"] == "passed" and case["property"] in COMPARISONS]
        failed = collections.defaultdict(list)
        for case in mine:
            if case["verdict"] not in ("passed", "not_supported"):
                failed[case["property"], case["verdict"], (case.get("place") or {}).get("tensor", "")].append(case)
        failures = []
        for (law, verdict, tensor), group in sorted(failed.items()):
            shown = [case for case in group if "shrunk" in case] or group
            worst = max(shown, key=ratio)
            failures.append({
                "property": law, "verdict": verdict, "cases": len(group), "regimes": sorted({case["regime"] for case in group}),
                "tensor": tensor,
                "largest_error_over_bound": max(group, key=ratio)["bound_util"],
                "worst": {key: worst[key] for key in ("bound_util", "error", "bound", "detail", "place") if key in worst}
                | {"replay": worst.get("shrunk", worst.get("replay"))}})
        yield {"name": kernel["name"], "contract": kernel["contract"], "cases": len(mine),
               "counts": dict(collections.Counter(case["verdict"] for case in mine)),
               "worst_passed_error_over_bound": max(passed, default=None), "failures": failures}


if __name__ == "__main__":
    out, context, *folders = sys.argv[1:]
    evidence = {"context": dict(word.split("=", 1) for word in context.split(";")),
                "kernels": list(kernels_of([pathlib.Path(folder) for folder in folders]))}
    pathlib.Path(out).write_text(json.dumps(evidence, indent=1) + "\n")
