"""Functions that compute the right thing once and cheat afterwards; `honest` does not."""
import kdacheck
import numpy as np
from python_kernels import recurrence

CONTRACT = "order=recurrence chunk=1 gates=log_decay beta_max=2 packed=no validates=no"


def declared(function):
    return kdacheck.kernel(CONTRACT, name="tests." + function.__name__)(function)


@declared
def honest(q, k, v, g, beta, scale, initial_state, output_final_state):
    return recurrence(q, k, v, g, beta, scale, initial_state)


cache = {}


@declared
def caches_by_pointer(q, k, v, g, beta, scale, initial_state, output_final_state):
    key = (q.ctypes.data, v.shape, initial_state is None)
    if key not in cache:
        cache[key] = recurrence(q, k, v, g, beta, scale, initial_state)
    return cache[key]


last = []


@declared
def returns_the_last(q, k, v, g, beta, scale, initial_state, output_final_state):
    result = recurrence(q, k, v, g, beta, scale, initial_state)
    last.append(result)
    before = last.pop(0) if len(last) > 1 else result
    return before if before[0].shape == v.shape and before[1].shape == result[1].shape else result


@declared
def changes_an_input(q, k, v, g, beta, scale, initial_state, output_final_state):
    result = recurrence(q, k, v, g, beta, scale, initial_state)
    v *= 2
    return result


@declared
def returns_an_input(q, k, v, g, beta, scale, initial_state, output_final_state):
    o, state = recurrence(q, k, v, g, beta, scale, initial_state)
    v[...] = o
    return v, state


@declared
def writes_no_state(q, k, v, g, beta, scale, initial_state, output_final_state):
    o, state = recurrence(q, k, v, g, beta, scale, initial_state)
    return o, np.zeros_like(state)
