"""A worker that breaks the protocol in the way its first argument names. Standard library alone."""
import json
import mmap
import os
import shutil
import signal
import struct
import sys
import threading
import time

way = sys.argv[1]


def write(path, name, shape, dtype="F32", width=4):
    count = 1
    for extent in shape:
        count *= extent
    header = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": [0, count * width]}}).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + bytes(count * width))


if way == "never_starts":
    time.sleep(600)
if way == "lacks_a_module":
    import no_such_module  # noqa: F401

if way == "starts_slowly":
    time.sleep(3)

for line in sys.stdin:
    request = json.loads(line)
    answer = {"done": True}
    if request["op"] == "hello":
        answer = {"protocol": 1, "kernels": [{"name": "worker." + way, "contract": "chunk=1"}]}
        if way == "takes_everything_and_aborts":
            answer["kernels"][0]["contract"] = "chunk=1 gates=log_decay,softplus l2norm=both betas=value,sigmoid beta_max=2"
        if way == "hello_garbage":
            answer = [1, 2]
        if way == "hello_contract":
            answer["kernels"][0]["contract"] = "chunk=1 colour=blue"
        if way == "hello_empty":
            answer["kernels"] = []
        if way == "hello_dash":
            answer["kernels"][0]["name"] = "--kernel"
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
    elif way == "touches_memory":
        held = []
        while True:
            held.append(b"x" * (1 << 24))
    elif way == "fills_its_folder":
        with open(request["result"] + ".more", "wb") as file:
            while True:
                file.write(b"x" * (1 << 24))
    elif way == "segfaults":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif way in ("aborts", "takes_everything_and_aborts"):
        os.abort()
    elif way == "result_is_a_pipe":
        os.mkfifo(request["result"])
    elif way == "result_is_a_device":
        os.symlink("/dev/zero", request["result"])
    elif way == "problem_is_a_pipe":
        os.remove(request["problem"])
        os.mkfifo(request["problem"])
    elif way == "endless_result":
        write(request["result"], "o", [1, 3, 2, 3])
        os.truncate(request["result"], 1 << 31)
    elif way == "removes_its_folder":
        shutil.rmtree(os.path.dirname(request["result"]))
    elif way == "deep":
        os.write(1, b"[" * 500000 + b"\n")
        continue
    elif way == "answers_twice":
        answer = {"refused": "first"}
        os.write(1, b'{"refused": "first"}\n')
    elif way == "answers_too_early":  # the result lies there when the gate has lost patience with it
        os.write(1, b'{"done": true}\n')
        time.sleep(0.05)
    elif way == "answers_unasked":
        if request["op"] != "hello":
            answer = {"refused": "in time"}
            threading.Timer(0.1, os.write, (1, b'{"refused": "too late"}\n')).start()
    elif way == "leaves_zombies":
        for _ in range(50):
            if os.fork() == 0:
                os._exit(0)
        if os.fork() == 0:
            time.sleep(600)
        answer = {"refused": "after fifty children"}
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
    elif way == "trespass_alone":
        answer = {"trespass": "changed input k"}
    elif way == "trespass_and_refusal":
        answer = {"refused": "not on a Monday", "trespass": "changed input k"}
    elif way == "floods":
        sys.stderr.write("x" * (8 << 20))
        answer = {"refused": "after a flood"}
    print(json.dumps(answer), flush=True)
