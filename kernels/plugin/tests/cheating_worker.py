"""A worker program that computes the right thing once and cheats afterwards, in the way that its argument names; `honest` does not."""
import json
import os
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python" / "examples"))
from numpy_worker import CONTRACT, forward, read, write  # noqa: E402: after the path

way = sys.argv[1]
cache, last = {}, []


def shape_of(result):
    return {name: x.shape for name, x in result.items()}


def result_of(request):
    problem, metadata = read(request["problem"])
    if way == "caches_by_file":
        key = str((request["problem"], shape_of(problem)))
        if key not in cache:
            cache[key] = forward(problem, metadata)
        return cache[key]
    result = forward(problem, metadata)
    if way == "returns_the_last":
        last.append(result)
        before = last.pop(0) if len(last) > 1 else result
        return before if shape_of(before) == shape_of(result) else result
    if way == "writes_no_state":
        result["final_state"] = np.zeros_like(result["final_state"])
    return result


for line in sys.stdin:
    request = json.loads(line)
    answer = {"done": True}
    if request["op"] == "hello":
        answer = {"protocol": 1, "kernels": [{"name": "cheating_worker." + way, "contract": CONTRACT}]}
    elif way == "links_to_the_input":
        write(request["result"], result_of(request) | {n: x for n, x in read(request["problem"])[0].items() if x.dtype == np.float32})
        os.replace(request["result"], request["problem"])
        os.link(request["problem"], request["result"])
    elif way == "result_is_a_link":
        write(request["result"] + ".kept", result_of(request))
        os.symlink(request["result"] + ".kept", request["result"])
    elif way == "keeps_the_file":  # the file of the first call for good
        kept = request["result"] + ".kept"
        if not os.path.exists(kept):
            write(kept, result_of(request))
        with open(request["result"], "wb") as file:
            file.write(pathlib.Path(kept).read_bytes())
    elif way != "writes_nothing":
        write(request["result"], result_of(request))
    if request["op"] != "hello" and way == "changes_an_input":
        with open(request["problem"], "r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\0\0\0\0")
    if request["op"] != "hello" and way == "removes_the_problem":
        os.remove(request["problem"])
    print(json.dumps(answer), flush=True)
