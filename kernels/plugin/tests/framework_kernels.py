"""The recurrence in PyTorch and in JAX, with gradients by autograd."""
import kdacheck

CONTRACT = "order=recurrence chunk=1 gates=log_decay beta_max=2 packed=no validates=no K=1..32 V=1..32 T=1..16"


def recurrence(library, cat, q, k, v, g, beta, scale, initial_state):
    group = v.shape[2] // q.shape[2]
    heads = library.arange(v.shape[2]) // group
    q, k = q[:, :, heads], k[:, :, heads]
    S = library.zeros((v.shape[0], v.shape[2], q.shape[3], v.shape[3])) if initial_state is None else initial_state
    rows = []
    for t in range(v.shape[1]):
        S = S * library.exp(g[:, t])[..., None]
        residual = beta[:, t][..., None] * (v[:, t] - (k[:, t][..., None] * S).sum(-2))
        S = S + k[:, t][..., None] * residual[..., None, :]
        rows.append((scale * q[:, t][..., None] * S).sum(-2))
    return cat(rows), S


@kdacheck.kernel(CONTRACT, name="tests.torch", framework="torch", backward="autograd")
def torch_recurrence(q, k, v, g, beta, scale, initial_state, output_final_state):
    import torch

    return recurrence(torch, lambda rows: torch.stack(rows, 1), q, k, v, g, beta, scale, initial_state)


@kdacheck.kernel(CONTRACT, name="tests.jax", framework="jax", backward="autograd")
def jax_recurrence(q, k, v, g, beta, scale, initial_state, output_final_state):
    import jax.numpy

    return recurrence(jax.numpy, lambda rows: jax.numpy.stack(rows, 1), q, k, v, g, beta, scale, initial_state)


@kdacheck.kernel(f"input=bf16 output=bf16 gradient=bf16 {CONTRACT}", name="tests.jax_bf16", framework="jax", backward="autograd")
def jax_bf16_recurrence(q, k, v, g, beta, scale, initial_state, output_final_state):
    import jax.numpy

    if q.dtype != jax.numpy.bfloat16:
        raise RuntimeError(f"q arrived as {q.dtype}")
    wide = [x.astype(jax.numpy.float32) for x in (q, k, v)]
    o, S = recurrence(jax.numpy, lambda rows: jax.numpy.stack(rows, 1), *wide, g, beta, scale, initial_state)
    return o.astype(jax.numpy.bfloat16), S
