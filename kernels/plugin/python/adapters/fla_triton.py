"""flash-linear-attention's Triton kernels of KDA and DPLR, on a CUDA device (pip install fla-core).

    KDACHECK_PYTHON=python PYTHONPATH=kernels/plugin/python/adapters \\
        ./kdacheck verify --call-timeout 300 --python fla_triton:chunk_kda --python fla_triton:fused_recurrent_kda

Their g is a natural logarithm and their states are [N,HV,K,V], as here. dt_bias is flat. DPLR is written
S = Diag(alpha) S + b a^T S + k v^T there and S = (Diag(alpha) - a b^T) S + k v^T here: their a is b, their b is -a.

Every new shape is compiled, and every tuning configuration of it. Two variables bound that: KDACHECK_FLA_SIZES is the part
of the contract that names K and V (`K=64 V=64`), and KDACHECK_FLA_TUNE=no keeps the first configuration of each kernel.
The packages promise nothing of repeatability across layouts: batch=none prefix=none.
"""
import os

import kdacheck

if os.environ.get("KDACHECK_FLA_TUNE") == "no":
    from triton.runtime.autotuner import Autotuner

    tuned = Autotuner.__init__

    def untuned(self, fn, arg_names, configs, *rest, **options):
        tuned(self, fn, arg_names, configs[:1], *rest, **options)

    Autotuner.__init__ = untuned

from fla.ops.generalized_delta_rule import chunk_dplr_delta_rule  # noqa: E402: after the tuner
from fla.ops.kda import chunk_kda as fla_chunk_kda  # noqa: E402
from fla.ops.kda import fused_recurrent_kda as fla_fused_recurrent_kda  # noqa: E402

SIZES = os.environ.get("KDACHECK_FLA_SIZES", "K=16..256 V=16..256")
STORED = f"input=bf16 output=bf16 batch=none prefix=none T=1.. {SIZES}"
FORMS = "gates=log_decay,softplus,bounded betas=value,sigmoid,twice_sigmoid beta_max=2 l2norm=both"
# The package turns calls down by all of these.
ON_DEVICE = {"framework": "torch", "device": "cuda", "refuses": (ValueError, TypeError, AssertionError, IndexError, RuntimeError)}


def forms(use_gate_in_kernel, lower_bound, beta_form, A_log, dt_bias):
    """Keywords that say in their words how g and beta are given."""
    words = {"use_beta_sigmoid_in_kernel": beta_form != "value", "allow_neg_eigval": beta_form == "twice_sigmoid"}
    if use_gate_in_kernel:
        bias = None if dt_bias is None else dt_bias.flatten()
        words |= {"use_gate_in_kernel": True, "lower_bound": lower_bound, "A_log": A_log, "dt_bias": bias}
    return words


@kdacheck.kernel(f"operands=bf16 solve=tf32 order=wy chunk=64 gradient=bf16 gradient_state=bf16 {STORED} {FORMS}", name="fla.chunk_kda", backward="autograd", **ON_DEVICE)
def chunk_kda(q, k, v, g, beta, scale, initial_state, output_final_state, cu_seqlens, A_log, dt_bias, use_qk_l2norm_in_kernel,
              use_gate_in_kernel, gate, lower_bound, beta_form):
    """chunks of 64; q and k are stored in bf16 after their norm, w u h and the inverse in bf16, which tf32 products merge"""
    return fla_chunk_kda(q, k, v, g, beta, scale, initial_state, output_final_state, use_qk_l2norm_in_kernel, cu_seqlens=cu_seqlens,
                         **forms(use_gate_in_kernel, lower_bound, beta_form, A_log, dt_bias))


@kdacheck.kernel(f"order=recurrence chunk=1 exp_ulp=8 {STORED} {FORMS}", name="fla.fused_recurrent_kda", **ON_DEVICE)
def fused_recurrent_kda(q, k, v, g, beta, scale, initial_state, output_final_state, cu_seqlens, A_log, dt_bias, use_qk_l2norm_in_kernel,
                        use_gate_in_kernel, gate, lower_bound, beta_form):
    """token by token in fp32; it has no backward pass"""
    return fla_fused_recurrent_kda(q, k, v, g, beta, scale=scale, initial_state=initial_state, output_final_state=output_final_state,
                                   use_qk_l2norm_in_kernel=use_qk_l2norm_in_kernel, cu_seqlens=cu_seqlens,
                                   **forms(use_gate_in_kernel, lower_bound, beta_form, A_log, dt_bias))


DPLR = f"rule=dplr operands=bf16 order=wy gradient=bf16 gradient_state=bf16 gates=log_decay l2norm=outside grouped=no {STORED}"


@kdacheck.kernel(f"chunk=16 {DPLR}", name="fla.chunk_dplr", backward="autograd", **ON_DEVICE)
def chunk_dplr(q, k, v, g, a, b, scale, initial_state, output_final_state, cu_seqlens):
    """chunks of 16, any decay"""
    return chunk_dplr_delta_rule(q, k, v, b, -a, g, scale, initial_state, output_final_state, cu_seqlens)


@kdacheck.kernel(f"chunk=16 cumsum=tf32 tf32=truncate {DPLR}", name="fla.chunk_dplr_tf32_sums", backward="autograd", **ON_DEVICE)
def chunk_dplr_tf32_sums(q, k, v, g, a, b, scale, initial_state, output_final_state, cu_seqlens):
    """the same, for users who accept that it adds up log decays in tf32, whose operands Hopper truncates"""
    return chunk_dplr_delta_rule(q, k, v, b, -a, g, scale, initial_state, output_final_state, cu_seqlens)


@kdacheck.kernel(f"chunk=64 solve=fp16 g_min=-2.5 {DPLR}", name="fla.chunk_dplr_bounded", backward="autograd", **ON_DEVICE)
def chunk_dplr_bounded(q, k, v, g, a, b, scale, initial_state, output_final_state, cu_seqlens):
    """chunks of 64 under lower_bound=-2.5: blocks of 16 inverted by repeated squaring in fp16"""
    return chunk_dplr_delta_rule(q, k, v, b, -a, g, scale, initial_state, output_final_state, cu_seqlens, lower_bound=-2.5)
