"""The PyTorch forms of KDA and of the gated delta rule in transformers, on the CPU (pip install transformers torch).

    KDACHECK_PYTHON=python OMP_NUM_THREADS=1 PYTHONPATH=kernels/plugin/python/adapters \\
        ./kdacheck verify --python transformers_kda:kimi_recurrent --python transformers_kda:kimi_chunk

Each of these is a fallback that transformers replaces by another package's kernel where it finds one: `unwrap` takes the
fallback itself. They compute in fp32 and take no packed sequences. Their scale is K^{-1/2} and no argument changes it: scale=rsqrt_K, and every other is refused.

The gated delta rule is KDA whose decay is the same in all channels of a head: decay=head. Its gradient of g is one number a
head, which says less than KDA's, so that dg is not judged; the other gradients are.
"""
import inspect

import kdacheck
import torch
from transformers.models.kimi_linear.modeling_kimi_linear import chunk_kimi_delta_attention, recurrent_kimi_delta_attention
from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule, torch_recurrent_gated_delta_rule

# Sizes that do not fit are turned down by PyTorch where they reach it.
BY = {"framework": "torch", "backward": "autograd", "refuses": (ValueError, RuntimeError)}
PROMISES = "gates=log_decay betas=value beta_max=2 l2norm=both scale=rsqrt_K T=1.. packed=no batch=none prefix=none"


def with_scale(result, scale, K):
    """The result, if the scale that is asked for is the only one there is."""
    if torch.tensor(scale, dtype=torch.float32) != torch.tensor(K**-0.5, dtype=torch.float32):
        raise NotImplementedError("the scale is K^-1/2")
    return result


def per_head(g):
    """g [B,T,HV] of a decay that is the same in all channels."""
    if not bool((g == g[..., :1]).all()):
        raise NotImplementedError("the decay differs between channels of a head")
    return g[..., 0]


@kdacheck.kernel(f"order=recurrence chunk=1 grouped=no {PROMISES}", name="transformers.kimi_recurrent", **BY)
def kimi_recurrent(q, k, v, g, beta, scale, initial_state, output_final_state, use_qk_l2norm_in_kernel):
    """Kimi Linear, token by token in fp32"""
    run = inspect.unwrap(recurrent_kimi_delta_attention)
    return with_scale(run(q, k, v, g, beta, initial_state, output_final_state, use_qk_l2norm_in_kernel), scale, q.shape[-1])


@kdacheck.kernel(f"order=wy chunk=64 grouped=no {PROMISES}", name="transformers.kimi_chunk", **BY)
def kimi_chunk(q, k, v, g, beta, scale, initial_state, output_final_state, use_qk_l2norm_in_kernel):
    """Kimi Linear, chunks of 64 in fp32"""
    run = inspect.unwrap(chunk_kimi_delta_attention)
    return with_scale(run(q, k, v, g, beta, 64, initial_state, output_final_state, use_qk_l2norm_in_kernel), scale, q.shape[-1])


@kdacheck.kernel(f"order=recurrence chunk=1 decay=head {PROMISES}", name="transformers.gated_delta_recurrent", **BY)
def gated_delta_recurrent(q, k, v, g, beta, scale, initial_state, output_final_state, use_qk_l2norm_in_kernel):
    """Qwen3-Next, token by token in fp32"""
    run = inspect.unwrap(torch_recurrent_gated_delta_rule)
    return with_scale(run(q, k, v, per_head(g), beta, initial_state, output_final_state, use_qk_l2norm_in_kernel), scale, q.shape[-1])


@kdacheck.kernel(f"order=wy chunk=64 decay=head {PROMISES}", name="transformers.gated_delta_chunk", **BY)
def gated_delta_chunk(q, k, v, g, beta, scale, initial_state, output_final_state, use_qk_l2norm_in_kernel):
    """Qwen3-Next, chunks of 64 in fp32"""
    run = inspect.unwrap(torch_chunk_gated_delta_rule)
    return with_scale(run(q, k, v, per_head(g), beta, 64, initial_state, output_final_state, use_qk_l2norm_in_kernel), scale, q.shape[-1])
