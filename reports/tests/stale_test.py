#!/usr/bin/env python3
"""What makes reports/cpu stale: code that its figures follow from, and nothing else.

    stale_test.py ROOT      exit 0: all hold; 1: one does not
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile


def main(root):
    root = pathlib.Path(root)
    with tempfile.TemporaryDirectory() as place:
        tree = pathlib.Path(place)
        for folder in ("kernels", "properties", "reference", "reports"):
            shutil.copytree(root / folder, tree / folder, ignore=shutil.ignore_patterns("*.json", "*.svg", "cuda", "__pycache__"))

        def run(*options):
            return subprocess.run([sys.executable, tree / "reports/cpu/stale.py", tree, *options], capture_output=True, text=True)

        def digest_with(name, change):
            path = tree / name
            before = path.read_text()
            after = change(before)
            assert after != before, name
            path.write_text(after)
            answer = run("--digest")
            path.write_text(before)
            return answer.stdout if answer.returncode == 0 else answer.stderr

        start = run("--digest").stdout
        same = {
            "properties/budget.cpp": lambda text: text.replace("// ", "//  ", 1) + "\n// said last\n",
            "properties/gate_power.cpp": lambda text: text + "int more;\n",
            "properties/tests/judge.cpp": lambda text: text + "int more;\n",
            "properties/found_cases.txt": lambda text: "# another reason\n" + text,
            "kernels/cpu/chunk.cpp": lambda text: text.replace("\n\n", "\n", 1),
        }
        other = {
            "properties/budget.cpp": lambda text: text + "int more;\n",
            "properties/found_cases.txt": lambda text: text.replace("seed=1", "seed=2", 1),
            "properties/laws/agrees_with_the_oracle.cpp": lambda text: text + "int more;\n",
            "kernels/cpu/chunk.cpp": lambda text: text.replace("1", "2", 1),
            "kernels/contract.cpp": lambda text: text.replace('"', '"more', 1),
            "reference/truth.cpp": lambda text: text.replace(";", ";;", 1),
            "reports/figures/draw.py": lambda text: text + "more = 1\n",
        }
        for name, change in same.items():
            assert digest_with(name, change) == start, f"{name}: stale without a reason"
        for name, change in other.items():
            assert digest_with(name, change) != start, f"{name}: a change goes unseen"
        stray = digest_with("properties/budget.cpp", lambda text: '#include "search.hpp"\n' + text)
        assert "properties/budget.cpp includes search.hpp" in stray, stray

        (tree / "reports/cpu/sources.sha256").write_text("0\n")
        (tree / "reports/cpu/figures").mkdir(exist_ok=True)
        for name in ("phase", "drift", "spectra"):
            (tree / f"reports/cpu/figures/{name}.svg").write_text("<svg/>")
        assert run().returncode == 5
        (tree / "reports/cpu/sources.sha256").write_text(start)
        assert run().returncode == 0, run().stdout
        (tree / "reports/cpu/drift.txt").unlink()
        assert run().returncode == 1
        for script in ("reports/cpu/stale.py", "reports/figures/draw.py", "reports/power/page.py"):
            alone = subprocess.run([sys.executable, root / script], capture_output=True, text=True)
            assert alone.returncode in (2, 69) and "Traceback" not in alone.stderr, (script, alone.returncode, alone.stderr)
    print("all hold")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
