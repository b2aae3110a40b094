"""What reports/peers/README.md cites is in the evidence beside it: every replay token, and every "ERROR where BOUND is (allowed)".
peers_test.py FOLDER"""
import json
import pathlib
import re
import sys

folder = pathlib.Path(sys.argv[1])
page = (folder / "README.md").read_text()
evidence = "".join((folder / name).read_text() for name in ("gpu.json", "cpu.json", "causes.json"))
json.loads((folder / "causes.json").read_text())

tokens = re.findall(r"`([a-z][\w.]*:[\w-]+:k\d+,[^`]*)`", page)
missing = [token for token in tokens if f'"{token}"' not in evidence]
pairs = re.findall(r"(\d[\d.]*(?:e-\d+)?) (?:in dg )?where (\d[\d.]*(?:e-\d+)?) (?:is|are)\b", page)
unheld = [pair for pair in pairs if not re.search(rf"{re.escape(pair[0])} (?:against a bound of|where) {re.escape(pair[1])}\b", evidence)]
if len(tokens) < 10 or len(pairs) < 5:
    sys.exit(f"{len(tokens)} tokens and {len(pairs)} figures found: the page is not read as it was written")
if missing or unheld:
    sys.exit(f"not in the evidence: tokens {missing}, figures {unheld}")
print(f"{len(tokens)} tokens and {len(pairs)} figures are in the evidence")
