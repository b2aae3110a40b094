"""Functions on a CUDA device that are right unless T is odd: then one reads what is not there, by Triton and by PyTorch."""
import kdacheck
import torch
import triton
import triton.language as tl
from framework_kernels import recurrence

CONTRACT = "order=recurrence chunk=1 gates=log_decay beta_max=2 packed=no validates=no batch=none prefix=none"
ON_DEVICE = {"framework": "torch", "device": "cuda"}


@triton.jit
def store_far_away(x):
    tl.store(x + (1 << 40), 1.0)


def on_device(q, k, v, g, beta, scale, initial_state):
    with torch.device("cuda"):
        return recurrence(torch, lambda rows: torch.stack(rows, 1), q, k, v, g, beta, scale, initial_state)


@kdacheck.kernel(CONTRACT, name="tests.triton_illegal", **ON_DEVICE)
def triton_illegal(q, k, v, g, beta, scale, initial_state, output_final_state):
    if v.shape[1] % 2:
        store_far_away[(1,)](v)
    return on_device(q, k, v, g, beta, scale, initial_state)


@kdacheck.kernel(CONTRACT, name="tests.torch_assert", **ON_DEVICE)
def torch_assert(q, k, v, g, beta, scale, initial_state, output_final_state):
    if v.shape[1] % 2:
        v = v[:, torch.tensor([v.shape[1]], device="cuda")]
    return on_device(q, k, v, g, beta, scale, initial_state)
