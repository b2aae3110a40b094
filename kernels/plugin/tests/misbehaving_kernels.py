"""Functions that do what no kernel may: one name, one way to misbehave."""
import ctypes
import os
import sys
import threading
import time

import kdacheck
import numpy as np


def declared(function):
    return kdacheck.kernel("chunk=1 validates=no", name="tests." + function.__name__)(function)


def zeros(v, q):
    B, _, HV, V = v.shape
    return np.zeros_like(v), np.zeros((B, HV, q.shape[3], V), np.float32)


@declared
def segfaults(q, k, v, g, beta, scale, initial_state, output_final_state):
    ctypes.string_at(1)


@declared
def aborts(q, k, v, g, beta, scale, initial_state, output_final_state):
    os.abort()


@declared
def exits(q, k, v, g, beta, scale, initial_state, output_final_state):
    sys.exit(3)


@declared
def leaves(q, k, v, g, beta, scale, initial_state, output_final_state):
    os._exit(0)


@declared
def hangs(q, k, v, g, beta, scale, initial_state, output_final_state):
    time.sleep(600)


@declared
def touches_memory(q, k, v, g, beta, scale, initial_state, output_final_state):
    held = []
    while True:
        held.append(np.ones(1 << 21))


@declared
def closes_pipes(q, k, v, g, beta, scale, initial_state, output_final_state):
    os.closerange(0, 64)
    time.sleep(600)


@declared
def recurses(q, k, v, g, beta, scale, initial_state, output_final_state):
    sys.setrecursionlimit(1 << 30)

    def deeper(n):
        return deeper(n + 1) + 1

    deeper(0)


@declared
def returns_rubbish(q, k, v, g, beta, scale, initial_state, output_final_state):
    return object(), "state"


@declared
def floods(q, k, v, g, beta, scale, initial_state, output_final_state):
    for _ in range(1000):
        print("x" * 10000)
        os.write(1, b"y" * 10000)
        sys.stderr.write("z" * 10000)
    return zeros(v, q)


@declared
def leaves_zombies(q, k, v, g, beta, scale, initial_state, output_final_state):
    for _ in range(50):
        if os.fork() == 0:
            os._exit(0)
    if os.fork() == 0:
        time.sleep(600)
    return zeros(v, q)


def answer_by_itself():
    """Writes to whatever channel the answers leave by."""
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, b'{"done": true}\n')
        except OSError:
            pass


@declared
def answers_itself(q, k, v, g, beta, scale, initial_state, output_final_state):
    answer_by_itself()
    return zeros(v, q)


@declared
def answers_later(q, k, v, g, beta, scale, initial_state, output_final_state):
    threading.Timer(0.05, answer_by_itself).start()
    return zeros(v, q)


@declared
def raises_value_error(q, k, v, g, beta, scale, initial_state, output_final_state):
    raise ValueError("no")


@declared
def raises_index_error(q, k, v, g, beta, scale, initial_state, output_final_state):
    return q[99, 99, 99, 99]


@declared
def fails_an_assertion(q, k, v, g, beta, scale, initial_state, output_final_state):
    assert q is None


@declared
def returns_no_state(q, k, v, g, beta, scale, initial_state, output_final_state):
    return zeros(v, q)[0]


@declared
def returns_three(q, k, v, g, beta, scale, initial_state, output_final_state):
    return *zeros(v, q), None
