"""flash-linear-attention's plain PyTorch forms of KDA, on the CPU (pip install flash-linear-attention).

    KDACHECK_PYTHON=python OMP_NUM_THREADS=1 PYTHONPATH=kernels/plugin/python/adapters \\
        ./kdacheck verify --python fla_naive:recurrent --python fla_naive:chunk

Both widen their inputs to fp32 and compute in it; g is a natural logarithm, states are [N,HV,K,V]. They take no packed
sequences. PyTorch does not promise that a batched product rounds like its parts, hence batch=none prefix=none.
"""
import kdacheck
from fla.ops.kda.naive import naive_chunk_kda, naive_recurrent_kda

# Sizes that do not fit are turned down by assertions, and by PyTorch or einops (a RuntimeError) where they reach them.
BY = {"framework": "torch", "backward": "autograd", "refuses": (AssertionError, ValueError, RuntimeError)}
PROMISES = "gates=log_decay betas=value beta_max=2 l2norm=outside packed=no batch=none prefix=none"


@kdacheck.kernel(f"order=recurrence chunk=1 {PROMISES}", name="fla.naive_recurrent_kda", **BY)
def recurrent(q, k, v, g, beta, scale, initial_state, output_final_state):
    """token by token in fp32"""
    return naive_recurrent_kda(q, k, v, g, beta, scale, initial_state, output_final_state)


@kdacheck.kernel(f"order=wy chunk=64 T=64../64 {PROMISES}", name="fla.naive_chunk_kda", **BY)
def chunk(q, k, v, g, beta, scale, initial_state, output_final_state):
    """chunks of 64 in fp32; T must be a multiple of 64"""
    return naive_chunk_kda(q, k, v, g, beta, scale, initial_state, output_final_state)
