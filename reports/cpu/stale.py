#!/usr/bin/env python3
"""Whether the reports in this folder were made from the sources in the tree.

    stale.py ROOT               exit 0: they were; 5: stale; 1: a report is missing
    stale.py ROOT --digest      prints what tells these sources from others
"""
import hashlib
import pathlib
import re
import sys

# What the figures follow from: what runs when a CPU kernel is judged or measured, and what words and draws the outcome.
MADE_FROM = ("kernels/*", "kernels/cpu/*", "properties/*", "properties/cases/*", "properties/laws/*", "properties/localise/*", "properties/perturbed/*",
             "properties/proved/*", "reference/*")
WORDED_BY = ("reports/page_data.cpp", "reports/recipe_coordinates.cpp", "reports/series.cpp", "reports/summary_markdown.cpp", "reports/transition_spectra.cpp",
             "reports/words.cpp", "reports/figures/draw.py")
# What no run of these reports comes to: campaigns on faults and rules, the search, oracles of modules.
NOT_RUN = {"gate_power", "power_halves", "acceptance_rule", "search", "detection_limits", "proved_ratio", "gated_norm", "gating", "hybrid", "kda_layer",
           "kda_layer_adjoint", "latent_attention", "latent_attention_adjoint", "short_convolution"}
REPORTS = ("summary.md", "drift.txt", "figures/phase.svg", "figures/drift.svg", "figures/spectra.svg")
LITERAL_OR_COMMENT = re.compile(r'R"\((?:.|\n)*?\)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//[^\n]*|/\*(?:.|\n)*?\*/')
INCLUDE = re.compile(r'^\s*#\s*include\s+"(?:[^"]*/)?(\w+)\.hpp"', re.MULTILINE)


def code_of(path):
    """Without comments, and without what the layout adds."""
    text = path.read_text()
    if path.suffix in (".txt", ".py"):
        return "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return " ".join(LITERAL_OR_COMMENT.sub(lambda found: " " if found[0].startswith("/") else found[0], text).split())


def sources(root):
    found = {path for pattern in MADE_FROM for path in root.glob(pattern) if path.suffix in (".cpp", ".hpp", ".txt") and path.name != "CMakeLists.txt"}
    kept = sorted(path for path in found if path.stem not in NOT_RUN) + [root / name for name in WORDED_BY]
    for path in kept:
        if strays := NOT_RUN & set(INCLUDE.findall(path.read_text())) if path.suffix in (".cpp", ".hpp") else None:
            raise SystemExit(f"{path.relative_to(root)} includes {', '.join(sorted(strays))}.hpp, which stale.py takes for something that no report comes to")
    return kept


def digest(root):
    total = hashlib.sha256()
    for path in sources(root):
        total.update(f"{path.relative_to(root)}\0{code_of(path)}\0".encode())
    return total.hexdigest()


def main(root, what=None):
    root = pathlib.Path(root)
    if what == "--digest":
        print(digest(root))
        return 0
    folder = root / "reports" / "cpu"
    missing = [name for name in (*REPORTS, "sources.sha256") if not (folder / name).is_file()]
    if missing:
        print("missing in reports/cpu:", *missing)
        return 1
    if (folder / "sources.sha256").read_text().strip() == digest(root):
        print("reports/cpu was made from these sources")
        return 0
    print("stale: code that its figures follow from has changed since reports/cpu was made; reports/cpu/make.sh makes it anew")
    return 5


if __name__ == "__main__":
    if len(sys.argv) == 2 and not sys.argv[1].startswith("-") or len(sys.argv) == 3 and sys.argv[2] == "--digest":
        sys.exit(main(*sys.argv[1:]))
    print(__doc__, file=sys.stderr)
    sys.exit(2)
