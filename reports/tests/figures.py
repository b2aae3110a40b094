#!/usr/bin/env python3
"""Pictures of a run as SVG: each is valid XML with marks in it, they come out the same twice, and trouble leaves no half of one.

    figures.py KDACHECK_PROGRAM      exit 0: all hold; 1: one does not; 77: not run, for want of matplotlib
"""
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

SVG = "{http://www.w3.org/2000/svg}"
DUE = {"phase", "length", "position", "spread", "drift", "spectra", "limits"}


def has_matplotlib():
    return any(subprocess.run([python, "-c", "import matplotlib"], capture_output=True).returncode == 0 for python in ("python3", "/usr/bin/python3"))


def marks(path):
    root = ElementTree.parse(path).getroot()
    assert root.tag == SVG + "svg", root.tag
    return len(root.findall(f".//{SVG}use")) + len(root.findall(f".//{SVG}path")) + len(root.findall(f".//{SVG}image"))


def main(program):
    if not has_matplotlib():
        print("not run: no matplotlib")
        return 77
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        run = [program, "verify", "--kernel", "cpu.chunk16.fp32", "--property", "agrees-with-the-oracle", "--regime", "*-keys", "--shrink-seconds", "0", "--out", place]
        subprocess.run(run, check=True, capture_output=True)
        subprocess.run([program, "measure", "--kernel", "cpu.chunk16.fp32", "--regime", "no-decay", "--longest", "256", "--out", place], check=True, capture_output=True)
        (place / "power.json").write_text('{"schema_version": 1, "faults": [], "limits": [{"contract": "chunk=16", "label": "x", "what": "o", "regime": "x", "exponent": 12, "relative": 0.000244140625, "seeds": 2}]}')
        for folder in ("once", "twice"):
            drawn = subprocess.run([program, "report", place, "--figures", place / folder], capture_output=True, text=True)
            assert drawn.returncode == 0 and not drawn.stderr, drawn.stderr
        assert "roofline.svg: nothing measured, not drawn" in drawn.stdout, drawn.stdout
        assert {path.stem for path in (place / "once").iterdir()} == DUE, list((place / "once").iterdir())
        for path in (place / "once").iterdir():
            assert marks(path) > 20, (path, marks(path))
            assert path.read_bytes() == (place / "twice" / path.name).read_bytes(), path
        none = subprocess.run([program, "report", place, "--figures", place / "none"], capture_output=True, text=True, env={"KDACHECK_PYTHON": "/bin/false", "PATH": "/usr/bin:/bin"})
        assert none.returncode == 3 and none.stderr.count("\n") == 1 and "ended with status 1" in none.stderr, (none.returncode, none.stderr)
        (place / "matplotlib.py").write_text("raise ImportError('broken on purpose')")
        for python, cause in ((place / "no-python", "No such file"), ("/usr/bin/python3", "broken on purpose")):
            none = subprocess.run([program, "report", place, "--figures", place / "none"], capture_output=True, text=True,
                                  env={"KDACHECK_PYTHON": str(python), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(place)})
            assert none.returncode == 3 and none.stderr.count("\n") == 1 and cause in none.stderr and "python3-matplotlib" in none.stderr, none.stderr
        (place / "matplotlib.py").write_text("def use(what): raise RuntimeError('another cause')")
        none = subprocess.run([program, "report", place, "--figures", place / "none"], capture_output=True, text=True,
                              env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(place)})
        assert none.returncode == 3 and none.stderr.count("\n") == 1 and none.stderr.endswith(": RuntimeError: another cause\n"), none.stderr
        (place / "matplotlib.py").unlink()
        (place / "power.json").write_text('{"schema_version": 2, "faults": []}')
        other = subprocess.run([program, "report", place], capture_output=True, text=True)
        assert other.returncode == 2 and "schema version 2" in other.stderr, (other.returncode, other.stderr)
    print("all hold")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
