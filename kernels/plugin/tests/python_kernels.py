"""Functions for the tests of the Python route."""
import kdacheck
import numpy as np

CONTRACT = "order=recurrence chunk=1"


def recurrence(q, k, v, g, beta, scale, initial_state):
    B, T, HV, V = v.shape
    q, k = (np.repeat(x, HV // x.shape[2], axis=2) for x in (q, k))
    S = np.zeros((B, HV, q.shape[3], V), np.float32) if initial_state is None else initial_state.copy()
    o = np.zeros_like(v)
    for t in range(T):
        S *= np.exp(g[:, t, :, :, None])
        residual = beta[:, t, :, None] * (v[:, t] - np.einsum("bhk,bhkv->bhv", k[:, t], S))
        S += k[:, t, :, :, None] * residual[:, :, None, :]
        o[:, t] = np.einsum("bhk,bhkv->bhv", np.float32(scale) * q[:, t], S)
    return o, S


@kdacheck.kernel(CONTRACT, name="tests.good")
def good(q, k, v, g, beta, scale, initial_state, output_final_state):
    return recurrence(q, k, v, g, beta, scale, initial_state)


@kdacheck.kernel(CONTRACT, name="tests.changes_its_input")
def changes_its_input(q, k, v, g, beta, scale, initial_state):
    result = recurrence(q, k, v, g, beta, scale, initial_state)
    k[0, 0, 0, 0] += 1
    return result


@kdacheck.kernel(CONTRACT, name="tests.returns_its_input")
def returns_its_input(q, k, v, g, beta, scale, initial_state):
    return v, recurrence(q, k, v, g, beta, scale, initial_state)[1]


@kdacheck.kernel(CONTRACT)
def raises(**everything):
    raise ValueError("no")


@kdacheck.kernel(CONTRACT)
def refuses(**everything):
    raise NotImplementedError("not on a Monday")


@kdacheck.kernel(CONTRACT, refuses=(ValueError, TypeError))
def refuses_as_declared(**everything):
    raise ValueError("no")


@kdacheck.kernel(CONTRACT)
def breaks(**everything):
    raise MemoryError("none left")


@kdacheck.kernel(CONTRACT, name="tests.takes_no_gate")
def takes_no_gate(q, k, v, beta, scale, initial_state):
    return v, None


NAMES = ("q", "k", "v", "g", "beta", "initial_state")


def zeros(words):
    return {"d" + n: np.zeros_like(words[n]) for n in NAMES if words[n] is not None}


def clean_backward(**words):
    return zeros(words)


def changes_its_cotangent(**words):
    words["do"][0, 0, 0, 0] += 1
    return zeros(words)


def returns_its_cotangent(**words):
    return zeros(words) | {"dv": words["do"]}


def backward_by(function):
    return kdacheck.kernel(CONTRACT, name="tests." + function.__name__, backward=function)(lambda q, k, v, g, beta, scale, initial_state: None)


with_clean_backward, with_changed_cotangent, with_returned_cotangent = map(backward_by, (clean_backward, changes_its_cotangent, returns_its_cotangent))


def declared_by_a_dictionary(q, k, v, g, beta, scale, initial_state, output_final_state):
    return good(q=q, k=k, v=v, g=g, beta=beta, scale=scale, initial_state=initial_state, output_final_state=output_final_state)


declared_by_a_dictionary.kdacheck = {"contract": CONTRACT, "name": "tests.dictionary"}
