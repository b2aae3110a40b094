#!/usr/bin/env python3
"""Draws the main pictures of a report as SVG, for papers.

    draw.py PAGE_DATA.json FOLDER      exit 0: drawn; 2: called otherwise; 69: no matplotlib, said on standard error; the data's keys: reports/page_data.hpp
"""
import json
import math
import os
import pathlib
import sys

try:
    import matplotlib
except ImportError as missing:
    sys.exit(print(missing, file=sys.stderr) or 69)
matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

plt.rcParams.update({"svg.hashsalt": "kdacheck", "font.size": 8, "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.5, "axes.axisbelow": True,
                     "figure.constrained_layout.use": True, "legend.fontsize": 6.5, "legend.frameon": False})
MANY = 1500  # marks; more of them become one embedded picture, so that the file stays small
MARKS = "o^sDvP*Xph"
COLOURS = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#e15759", "#76b7b2", "#c2a000", "#9c755f", "#d37295", "#79706e"]
NO_DECAY, BOUND = 1e-7, {"color": "#c62828", "linestyle": "--", "linewidth": 1}


def scatter(axes, x, y, **more):
    return axes.scatter(x, y, rasterized=len(x) > MANY, linewidths=more.pop("linewidths", 0.3), edgecolors=more.pop("edgecolors", "#555555"), **more)


def phase(page):
    cases, recipes = page["cases"], page["recipes"]
    points = [(min(5e3, max(3e-7, recipes[r][2])) if recipes[r][2] else NO_DECAY, recipes[r][3], float(util)) for r, util in zip(cases["recipe"], cases["util"])]
    if not points:
        return None
    figure, axes = plt.subplots(figsize=(5.6, 3.4))
    sound = sorted((p for p in points if math.isfinite(p[2])), key=lambda p: p[2])
    broken = [p for p in points if not math.isfinite(p[2])]
    axes.axvspan(1e-3, 1.6, color="#1a7f4b", alpha=0.13, label="gates of published models at their start")
    axes.axvspan(1.6, 2661, fill=False, edgecolor="#1a7f4b", linestyle="--", linewidth=0.7, label="of trained Kimi Linear")
    drawn = scatter(axes, [p[0] for p in sound], [p[1] for p in sound], c=[p[2] for p in sound], vmin=0, vmax=1, s=18, cmap="viridis")
    if broken:
        axes.scatter([p[0] for p in broken], [p[1] for p in broken], marker="x", color="#c62828", label="non-finite")
    axes.set(xscale="log", xlabel=r"typical decay $|\ln\alpha|$ per token (leftmost: none)", ylabel="key correlation", ylim=(-0.05, 1.05))
    figure.colorbar(drawn, label="error / bound")
    axes.legend(loc="lower right")
    return figure


def along(page, where, label, scale):
    cases = page["cases"]
    figure, axes = plt.subplots(figsize=(5.6, 3))
    for t, tensor in enumerate(page["tensors"]):
        marks = [(where(i), min(float(cases["util"][i]), 10)) for i in range(len(cases["util"])) if cases["tensor"][i] == t and where(i) >= 0]
        if marks:
            scatter(axes, [x for x, _ in marks], [y for _, y in marks], s=6, marker=MARKS[t % len(MARKS)], color=COLOURS[t % len(COLOURS)], linewidths=0, label=tensor)
    if not axes.collections:
        plt.close(figure)
        return None
    axes.axhline(1, **BOUND)
    axes.set(xscale=scale, xlabel=label, ylabel="error / bound", ylim=(0, None))
    axes.legend(ncol=5, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    return figure


def length(page):
    return along(page, lambda i: max(0.5, page["recipes"][page["cases"]["recipe"][i]][1]), "longest sequence T", "log")


def position(page):
    return along(page, lambda i: page["cases"]["position"][i], "position in the chunk", "linear")


def spread(page):
    tensors = sorted({row[1] for row in page["spread"]})
    if not tensors:
        return None
    columns = min(3, len(tensors))
    lines = math.ceil(len(tensors) / columns)
    names = [kernel["name"] for kernel in page["kernels"]]
    figure, grid = plt.subplots(lines, columns, figsize=(6.8, max(1.5, lines * (0.5 + 0.15 * len(names)))), sharex=True, sharey=True, squeeze=False)
    for axes, tensor in zip(grid.flat, tensors):
        for row in (row for row in page["spread"] if row[1] == tensor):
            low, quarter, middle, three, high, most = (min(float(x), 10) for x in row[4:10])
            axes.plot([low, high], [row[0]] * 2, color="#1f61b2", alpha=0.5, linewidth=1.5)
            axes.plot([quarter, three], [row[0]] * 2, color="#1f61b2", linewidth=4, solid_capstyle="butt")
            axes.plot([middle], [row[0]], "|k", markersize=7)
            axes.plot([most], [row[0]], "^k", markersize=3)
        axes.axvline(1, **BOUND)
        axes.set_title(page["tensors"][tensor], fontsize=8)
        axes.set_yticks(range(len(names)), names)
    for axes in list(grid.flat)[len(tensors):]:
        axes.set_visible(False)
    grid.flat[0].invert_yaxis()
    figure.supxlabel("error / bound: 5 % to 95 %, quartiles, median, largest")
    return figure


def drift(page):
    rows = (page.get("series") or {}).get("drift", [])
    if not any(row["windows"] for row in rows):
        return None
    figure, (by_token, by_length) = plt.subplots(1, 2, figsize=(7, 3))
    for at, row in enumerate(rows):
        style = {"color": COLOURS[at % len(COLOURS)], "marker": MARKS[at % len(MARKS)], "markersize": 2.5, "linewidth": 0.9}
        by_token.plot([window[0] + 1 for window in row["windows"]], [min(float(window[1]), 10) for window in row["windows"]], label=row["kernel"] + ", " + row["regime"], **style)
        judged = [entry for entry in row["lengths"] if entry[1] != "not_supported" and float(entry[3]) > 0]
        by_length.plot([entry[0] for entry in judged], [float(entry[3]) for entry in judged], **style)
    by_token.axhline(1, **BOUND)
    by_token.set(xscale="log", xlabel="token", ylabel="error / bound of o", ylim=(0, None))
    by_length.set(xscale="log", yscale="log", xlabel="tokens of the sequence", ylabel="relative error (rms)")
    figure.legend(*by_token.get_legend_handles_labels(), loc="lower center", ncol=2, bbox_to_anchor=(0.5, 1.0))
    return figure


def spectra(page):
    rows = (page.get("series") or {}).get("spectra", [])
    kda = [sample for row in rows if row["rule"] == "kda" for sample in row["samples"] if -1 < sample[0] < 6]
    dplr = [sample for row in rows if row["rule"] == "dplr" for sample in row["samples"]]
    if not kda and not dplr:
        return None
    figure, (least, norm) = plt.subplots(1, 2, figsize=(7, 3.2))
    if kda:
        least.vlines([s[0] for s in kda], [float(s[2]) for s in kda], [float(s[3]) for s in kda], color="#1f61b2", alpha=0.4, linewidth=2.5, label="proved enclosure")
        scatter(least, [s[0] for s in kda], [s[1] for s in kda], s=3, color="k", linewidths=0, label="computed")
    least.set(xlabel=r"$\tau=\beta|k|^2$", ylabel="smallest eigenvalue (KDA)")
    least.legend()
    for samples, name, mark, colours in ((kda, "KDA", "o", COLOURS[:2]), (dplr, "general form", "s", (COLOURS[2], COLOURS[3]))):
        shown = [s for s in samples if s[6] <= 4]
        for column, what, colour in ((7, "proved bound", colours[0]), (8, "heuristic", colours[1])):
            if shown:
                scatter(norm, [s[6] for s in shown], [min(s[column], 4.4) for s in shown], s=7, marker=mark if column == 7 else "x", color=colour, edgecolors=None, linewidths=0.6, label=f"{name}, {what}")
    norm.axhline(1, **BOUND)
    norm.set(xlabel="norm, computed", ylabel="what is said of it", xlim=(0, None), ylim=(0, 4.5))
    norm.legend()
    return figure


def limits(page):
    rows = page.get("limits") or []
    if not rows:
        return None
    labels, kinds = list(dict.fromkeys(row["label"] for row in rows)), list(dict.fromkeys(row["what"] for row in rows))
    best = {}
    for row in rows:
        place = labels.index(row["label"]), kinds.index(row["what"])
        best[place] = max(best.get(place, 0), row["exponent"] or 0)
    figure, axes = plt.subplots(figsize=(2 + 0.34 * len(kinds), 1.4 + 0.2 * len(labels)))
    grid = [[best.get((y, x), math.nan) for x in range(len(kinds))] for y in range(len(labels))]
    axes.imshow(grid, aspect="auto", cmap="Blues", vmin=0, vmax=30)
    for (y, x), exponent in best.items():
        axes.text(x, y, f"$2^{{-{exponent}}}$" if exponent else "none", ha="center", va="center", fontsize=6)
    axes.set_xticks(range(len(kinds)), kinds, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.grid(False)
    axes.set_title("smallest relative error that is refused, by contract and tensor", fontsize=8)
    return figure


def roofline(page):
    bench = page.get("bench") or {"rows": []}
    rows = [row for row in bench["rows"] if row["flops"] > 0]
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(5.6, 3.2))
    copy, peak = bench["copy_bytes_per_second"] * 1e-9, bench["fp32_flops_per_second"] * 1e-9
    ends = [min(min(row["flops"] / row["bytes"] for row in rows), peak / copy) / 3, max(max(row["flops"] / row["bytes"] for row in rows), peak / copy) * 3]
    axes.plot([ends[0], peak / copy, ends[1]], [copy * ends[0], peak, peak], label="measured ceilings", **BOUND)
    for at, what in enumerate(dict.fromkeys(row["what"] for row in rows)):
        here = [row for row in rows if row["what"] == what]
        scatter(axes, [row["flops"] / row["bytes"] for row in here], [row["flops"] / row["median_ms"] * 1e-6 for row in here], s=16, marker=MARKS[at], color=COLOURS[at], label=what)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="GFLOP/s")
    axes.legend()
    return figure


def main(data, folder):
    page = json.loads(pathlib.Path(data).read_text())
    for draw in (phase, length, position, spread, drift, spectra, limits, roofline):
        figure = draw(page)
        if figure is None:
            print(f"{draw.__name__}.svg: nothing measured, not drawn")
            continue
        goal = pathlib.Path(folder) / f"{draw.__name__}.svg"
        part = goal.with_suffix(".part")
        figure.savefig(part, format="svg", dpi=200, bbox_inches="tight", metadata={"Date": None, "Creator": "kdacheck"})
        plt.close(figure)
        os.replace(part, goal)
        print(f"wrote {goal}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    main(*sys.argv[1:])
