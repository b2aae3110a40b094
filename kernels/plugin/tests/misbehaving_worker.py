"""A worker that breaks the protocol in the way its first argument names. Standard library alone."""
import json
import mmap
import os
import struct
import sys
import time

way = sys.argv[1]


def write(path, name, shape, dtype="F32", width=4):
    count = 1
    for extent in shape:
        count *= extent
    header = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": [0, count * width]}}).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + bytes(count * width))


for line in sys.stdin:
    request = json.loads(line)
    answer = {"done": True}
    if request["op"] == "hello":
        answer = {"protocol": 1, "kernels": [{"name": "worker." + way, "contract": "chunk=1"}]}
        if way == "hello_garbage":
            answer = [1, 2]
        if way == "hello_contract":
            answer["kernels"][0]["contract"] = "chunk=1 colour=blue"
        if way == "hello_empty":
            answer["kernels"] = []
        if way == "hello_version":
            answer["protocol"] = 7
    elif way == "refuses":
        answer = {"refused": "not on a Monday"}
    elif way == "error":
        answer = {"error": "ValueError: no"}
    elif way == "no_result":
        pass
    elif way == "no_tensor":
        write(request["result"], "p", [1, 3, 2, 3])
    elif way == "wrong_shape":
        write(request["result"], "o", [1, 3, 3, 2])
    elif way == "wrong_type":
        write(request["result"], "o", [1, 3, 2, 3], "I32")
    elif way == "truncated":
        write(request["result"], "o", [1, 3, 2, 3])
        os.truncate(request["result"], 60)
    elif way == "noise":
        os.write(1, os.urandom(300) + b"\n")
        continue
    elif way == "long_line":
        os.write(1, b"x" * (3 << 20))
        time.sleep(60)
    elif way == "nothing_said":
        answer = {}
    elif way == "hangs":
        time.sleep(600)
    elif way == "exits":
        sys.exit(7)
    elif way == "eats_memory":  # pages that are never touched: limits are met before the machine's memory is
        held = []
        while True:
            held.append(mmap.mmap(-1, 1 << 32, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    elif way == "closes_pipes":
        os.close(0)
        os.close(1)
        time.sleep(600)
    elif way == "leaves_a_daemon":
        ends = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() != 0:
                os._exit(0)
            os.write(ends[1], str(os.getpid()).encode())
            time.sleep(600)
        answer = {"refused": os.read(ends[0], 32).decode()}
    elif way == "trespass":
        write(request["result"], "o", [1, 3, 2, 3])
        answer["trespass"] = "changed input k"
    elif way == "floods":
        sys.stderr.write("x" * (8 << 20))
        answer = {"refused": "after a flood"}
    print(json.dumps(answer), flush=True)
