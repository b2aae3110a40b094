#!/usr/bin/env python3
"""Makes power.json and README.md of this folder from the folders that run.sh fills.

    page.py make ROOT RESULTS...    what a later folder of results holds replaces what an earlier one does
    page.py add ROOT RESULTS...     the same, and what none holds stays what it is
    page.py stale ROOT              exit 0: all made from these sources; 5: stale; 1: something is missing
    page.py digest ROOT             prints what tells these sources from others
"""
import hashlib
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "cpu"))
from stale import code_of  # noqa: E402

MADE_FROM = ("kernels/cpu", "kernels/faults", "properties", "reference")


def digest(root):
    """Of the names and code of all sources that the campaign depends on; comments, layout, tests and benchmarks do not change it."""
    total = hashlib.sha256()
    for path in sorted(path for folder in MADE_FROM for path in (root / folder).rglob("*")):
        name = path.relative_to(root)
        if path.suffix in (".cpp", ".hpp", ".txt") and not {"tests", "bench", "modules"} & set(name.parts):
            total.update(f"{name}\0{code_of(path)}\0".encode())
    return total.hexdigest()


def results_of(folder):
    """Faults and right kernels by name, each with the sources it was measured on."""
    sources = (folder / "sources").read_text().strip()
    machine = (folder / "machine").read_text().split(":")[-1].strip()
    parts = {"faults": faults_of(folder), "correct": right_of(folder, "correct"), "legal": right_of(folder, "legal")}
    return {kind: {one["name"]: one | {"sources": sources, "machine": machine} for one in every} for kind, every in parts.items()}


def faults_of(results):
    """Every fault over all seeds: on which it was caught, where first, and the compute time until then."""
    faults = {}
    for file in sorted(results.glob("faults-*/power.json"), key=lambda f: int(f.parent.name.split("-")[1])):
        seed = int(file.parent.name.split("-")[1])
        for one in json.loads(file.read_text())["faults"]:
            fault = faults.setdefault(one["name"], {
                "name": one["name"], "origin": one["origin"], "what": one["what"], "seeds": [], "caught_on": [], "seconds": [], "first": {}})
            fault["seeds"].append(seed)
            if not one["caught"]:
                continue
            fault["caught_on"].append(seed)
            fault["seconds"].append(one["first_catch_seconds"])
            law, recipe = one["found"].split(":")[1:3]
            cell = f"{law} on {recipe.split(',')[1]}"
            fault["first"][cell] = fault["first"].get(cell, 0) + 1
    return list(faults.values())


def halves_of(folder):
    """By seed: what gate-power says of the two halves of the planted list, with the sources it was measured on."""
    sources = (folder / "sources").read_text().strip()
    files = {int(file.parent.name.split("-")[1]): json.loads(file.read_text()) for file in folder.glob("faults-*/power.json")}
    return {seed: {"seed": seed, "sources": sources, "halves": files[seed]["halves"]} for seed in sorted(files)}


def right_of(results, kind):
    kernels = []
    for file in sorted(results.glob("right-*/power.json"), key=lambda f: int(f.parent.name.split("-")[1])):
        kernels += json.loads(file.read_text())[kind]
    return kernels


def median(numbers):
    ordered = sorted(numbers)
    return ordered[len(ordered) // 2] if ordered else None


def limits_of(results):
    """Of all contracts and regimes, with the sources they were measured on."""
    sources = (results / "sources").read_text().strip()
    files = sorted(results.glob("limits-*/power.json"), key=lambda f: int(f.parent.name.split("-")[1]))
    return [limit | {"sources": sources} for file in files for limit in json.loads(file.read_text())["limits"]]


def cell(limit):
    return limit["label"], limit["regime"], limit["what"]


SHORT = {"o": "o", "one token of o": "its token", "final_state": "S", "one row of final_state": "its row"}


def limits_table(limits):
    """Best figure over regimes: a row per contract, a column per tensor."""
    contracts = list(dict.fromkeys(limit["label"] for limit in limits))
    tensors = list(dict.fromkeys(limit["what"] for limit in limits))
    tensors.sort(key=lambda what: (what.startswith("d"), what.startswith("input")))
    short = [SHORT.get(what, what.removeprefix("input ")).replace("initial_state", "S0") for what in tensors]
    lines = ["| contract | " + " | ".join(short) + " |", "|---|" + "--:|" * len(tensors)]
    for label in contracts:
        cells = []
        for what in tensors:
            of = [limit for limit in limits if limit["label"] == label and limit["what"] == what]
            found = [limit["exponent"] for limit in of if limit["exponent"] is not None]
            cells.append(str(max(found)) if found else "none" if of else "-")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def limits_section(limits):
    if not limits:
        return ["", "## Detection limits", "", "Not measured."]
    regimes = list(dict.fromkeys(limit["regime"] for limit in limits))
    sources = sorted({limit.get("sources", "")[:16] for limit in limits})
    named = {limit["label"]: limit["contract"] for limit in limits}
    seen_by = {}
    for what in dict.fromkeys(limit["what"] for limit in limits):
        best = max((limit for limit in limits if limit["what"] == what), key=lambda limit: limit["exponent"] or 0)
        seen_by[best["regime"]] = seen_by.get(best["regime"], []) + [what]
    return [
        "", "## Detection limits", "",
        "The smallest error that the gate sees, by contract: a cell holds the largest e over the regimes such that a relative error of 2^-e in",
        f"every element (in one token, in one row) is refused on every one of {limits[0]['seeds']} seeds. none: not even 1/2; -: the contract has no such tensor.",
        "o, its token, S and its row are results; q to S0 are inputs, misread before the kernel's first rounding; then gradients. Below such",
        "an error no test of the gate tells a wrong kernel from one that rounds as its contract allows. fp32 holds no relative change",
        "below 2^-24: 20 leaves 4 bits to the roundings of a whole case.", "",
        *limits_table(limits), "",
        f"Measured on sources {', '.join(sources)} over {len(regimes)} regimes; each figure is in power.json. Most sensitive, over all contracts: " +
        "; ".join(f"{regime} for {', '.join(tensors)}" for regime, tensors in seen_by.items()) + ".", "",
        "| contract | as text |", "|---|---|", *(f"| {label} | `{text}` |" for label, text in named.items())]


def sources_table(data):
    parts = [(kind, one) for kind in ("faults", "correct", "legal") for one in data[kind]]
    for sources, machine in dict.fromkeys((one["sources"], one["machine"]) for _, one in parts):
        of = [sum(kind == wanted and (one["sources"], one["machine"]) == (sources, machine) for kind, one in parts)
              for wanted in ("faults", "correct", "legal")]
        this = " (the last)" if sources == data["sources"] else ""
        yield f"| {sources[:16]}{this} | {of[0]} | {of[1]} | {of[2]} | {machine} |"


def halves_section(data):
    """Of the seeds on which all the faults of the page were planted: a part of them has other halves."""
    seeds = [one["halves"] for one in data.get("halves", []) if sum(half["faults"] for half in one["halves"]) == len(data["faults"])]
    lines = ["", "## The planted list in two halves", ""]
    if not seeds:
        return [*lines, "Not measured on the whole list."]

    def over_seeds(half, key):
        figures = [halves[half][key] for halves in seeds]
        low, high = min(figures), max(figures)
        return f"{median(figures)}" if low == high else f"{median(figures)} ({low} to {high})"

    share = [sum(half["caught_by_cells"] for half in halves) / sum(half["faults"] for half in halves) for halves in seeds]
    lines += [
        "A hash of the names puts every fault into one of two halves. On one, the gate is tuned: cells (a law on a regime) are taken one after",
        "another, each the one that was first to catch most of what is left, until they catch all that was caught of it. On the other, these",
        f"cells alone are tested. Median over {len(seeds)} seed{'s' if len(seeds) > 1 else ''} (least to most):", "",
        "| tested on | faults | caught by the whole gate | cells tuned on the other half | caught by these alone |", "|---|--:|--:|--:|--:|",
        *(f"| half {half} | {seeds[0][half]['faults']} | {over_seeds(half, 'caught')} | {over_seeds(half, 'cells')} | "
          f"{over_seeds(half, 'caught_by_cells')} |" for half in (0, 1)), "",
        f"A gate cut down to what one half of a list asks for would let {1 - max(share):.0%} to {1 - min(share):.0%} of the other half past where it was caught: this",
        "is what a new fault may meet in a gate that was fitted to known ones, and why this one keeps every law on every regime. Figures are of",
        "first catches, where a run of `gate-power` stops: later ones are not counted, so that the tuned cells may do better than this. The",
        "whole gate's is no blind test: its laws were written with the whole list known."]
    return lines


def missed_before(faults):
    """What got through first: the page must not look as if it had been caught from the start."""
    for fault in faults:
        if before := fault.get("missed_before"):
            yield (f"`{fault['name']}` was caught on {len(before['caught_on'])} of {len(before['seeds'])} seeds of {before['sources'][:16]}; "
                   "the figure below is of the later sources. ")


def page(data):
    faults, correct, legal = data["faults"], data["correct"], data["legal"]
    seeds = sorted({seed for fault in faults for seed in fault["seeds"]})
    everywhere = [fault for fault in faults if sorted(fault["caught_on"]) == seeds]
    refused = sum(kernel["rejected"] for kernel in correct)
    lines = [
        "# What the gate catches and what it lets pass",
        "",
        f"**{len(everywhere)} of {len(faults)} planted faults are caught on every one of {len(seeds)} seeds** (seeds {seeds[0]} to {seeds[-1]}, quick tier).",
        *(["Not all on the same sources: see the table."] if len({one["sources"] for one in faults + correct + legal}) > 1 else []),
        f"**{refused} of {sum(kernel['cases'] for kernel in correct)} cases of {len(correct)} correct variants are refused**, "
        f"at least {min(kernel['cases'] for kernel in correct)} cases each; "
        f"{sum(kernel['inconclusive'] for kernel in correct)} more are inconclusive.",
        "",
        "    reports/power/run.sh RESULTS        # `gate-power`, one process per seed of faults, per right kernel, per contract and regime of the limits",
        "    python3 reports/power/page.py make . RESULTS",
        "",
        "`ctest -R reports/power` says whether the sources have changed since. Measured on (sha256 of the sources, as `page.py digest .` prints it):",
        "",
        "| sources | faults | correct variants | legal roundings | machine |",
        "|---|--:|--:|--:|---|",
        *sources_table(data),
        "",
        *missed_before(faults),
        "What was measured on other sources than the last stands until it is measured again. All figures: [power.json](power.json).",
        "",
        "## Planted faults",
        "",
        "A run of `gate-power` stops at a fault's first catch on each seed: where it was caught first, and on how many seeds there. Time: compute",
        "time of one thread from the fault's first case to its first catch, oracle and budgets included, median over seeds.",
        "",
        "| fault | caught on | first caught by (seeds) | time | origin |",
        "|---|--:|---|--:|---|",
    ]
    for fault in sorted(faults, key=lambda fault: len(fault["caught_on"])):
        first = sorted(fault["first"].items(), key=lambda item: -item[1])
        where = "; ".join(f"{cell} ({count})" for cell, count in first[:2]) + (f"; {len(first) - 2} more" if len(first) > 2 else "")
        time = median(fault["seconds"])
        lines.append(f"| {fault['name']} | {len(fault['caught_on'])} of {len(fault['seeds'])} | {where} | "
                     f"{'-' if time is None else f'{time:.2g} s'} | {fault['origin']} |")
    lines += halves_section(data)
    lines += ["", "## Correct variants", "",
              "A largest error / bound just below 1 comes from laws that compare a norm with a bound which some cases reach exactly.", "",
              "Agreement: cases that a law of agreement with the oracle decided; the other laws ask for less than all that is true of a result.", "",
              "| variant | cases | of agreement | regimes | refused | inconclusive | largest error / bound |", "|---|--:|--:|--:|--:|--:|--:|"]
    for kernel in correct:
        lines.append(f"| {kernel['name'][8:]} | {kernel['cases']} | {kernel.get('agreement', '-')} | {len(kernel['regimes']) if 'regimes' in kernel else '-'} | {kernel['rejected']} | {kernel['inconclusive']} | {kernel['worst_bound_util']:.3f} |")
    lines += ["", "## What cannot be told apart, and why", "",
              "A departure that is a fault under one contract and legal under another: no test may refuse it there.", "",
              "| fault | under | cases | refused | reason |", "|---|---|--:|--:|---|"]
    for kernel in legal:
        reason = kernel["reason"].replace("|", "\\|")
        lines.append(f"| {kernel['fault']} | {kernel['label']} | {kernel['cases']} | {kernel['rejected']} | {reason} |")
    lines += limits_section(data["limits"])
    return "\n".join(lines) + "\n"


def make(root, folders, keep):
    folder = root / "reports" / "power"
    merged, limits, halves = {"faults": {}, "correct": {}, "legal": {}}, {}, {}
    if keep:
        before = json.loads((folder / "power.json").read_text())
        merged = {kind: {one["name"]: one for one in before[kind]} for kind in merged}
        limits = {cell(one): one for one in before["limits"]}
        halves = {one["seed"]: one for one in before.get("halves", [])}
    for results in folders:
        for kind, every in results_of(results).items():
            for name, one in every.items():
                before = merged[kind].get(name)
                if kind == "faults" and before and before["caught_on"] != before["seeds"]:
                    one["missed_before"] = {key: before[key] for key in ("sources", "seeds", "caught_on")}
                merged[kind][name] = one
        limits |= {cell(one): one for one in limits_of(results)}
        halves |= halves_of(results)
    data = {
        "schema_version": 1,
        "sources": digest(root),
        **{kind: list(every.values()) for kind, every in merged.items()},
        "halves": list(halves.values()),
        "limits": list(limits.values()),
    }
    for kind in ("faults", "correct", "legal", "limits"):
        if not data[kind]:
            print(f"no {kind} in the results")
            return 1
    (folder / "power.json").write_text(json.dumps(data, indent=1) + "\n")
    (folder / "README.md").write_text(page(data))
    return 0


def stale(root):
    file = root / "reports" / "power" / "power.json"
    if not file.is_file() or not (file.parent / "README.md").is_file():
        print("missing in reports/power: power.json or README.md")
        return 1
    data, now = json.loads(file.read_text()), digest(root)
    parts = [one for kind in ("faults", "correct", "legal", "limits") for one in data[kind]]
    old = sum(one.get("sources") != now for one in parts)
    if old == 0:
        print("reports/power was made from these sources")
        return 0
    print(f"stale: kernels, properties or reference have changed since {old} of {len(parts)} figures of reports/power were measured; "
          "reports/power/run.sh and page.py make it anew")
    return 5


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] in (["make"], ["add"]) and len(arguments) >= 3:
        sys.exit(make(pathlib.Path(arguments[1]), [pathlib.Path(folder) for folder in arguments[2:]], arguments[0] == "add"))
    if arguments[:1] == ["digest"] and len(arguments) == 2:
        print(digest(pathlib.Path(arguments[1])))
        sys.exit(0)
    if arguments[:1] == ["stale"] and len(arguments) == 2:
        sys.exit(stale(pathlib.Path(arguments[1])))
    print(__doc__)
    sys.exit(2)
