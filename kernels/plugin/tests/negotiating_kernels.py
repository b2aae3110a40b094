"""Functions that keep to the domain they declare, compute more than it, or refuse all of it."""
import kdacheck
import numpy as np
from python_kernels import recurrence

CONTRACT = "order=recurrence chunk=1 gates=log_decay beta_max=2 packed=no scale=rsqrt_K"


def computed(q, k, v, g, beta, scale, initial_state):
    if v.shape[2] % q.shape[2] != 0:
        raise ValueError("HV must be a multiple of H")
    return recurrence(q, k, v, g, beta, scale, initial_state)


@kdacheck.kernel(CONTRACT, name="negotiating.strict", refuses=ValueError)
def strict(q, k, v, g, beta, scale, initial_state, output_final_state):
    if np.float32(scale) != np.float32(q.shape[3] ** -0.5):
        raise ValueError("the scale is K^-1/2")
    return computed(q, k, v, g, beta, scale, initial_state)


@kdacheck.kernel(CONTRACT, name="negotiating.lax", refuses=ValueError)
def lax(q, k, v, g, beta, scale, initial_state, output_final_state):
    return computed(q, k, v, g, beta, scale, initial_state)


@kdacheck.kernel(CONTRACT, name="negotiating.shy")
def shy(**everything):
    raise NotImplementedError("not on a Monday")
