"""The recurrence that a model is given, right or with a fault: what a kernel with that fault would compute, put together from calls of the
right one. Names are those of kernels/faults."""
import torch
from kda_cuda import kda

CHUNK = 64  # tokens between the places where a state is handed on


def in_chunks(x, B):
    """[B,T,...] as chunks of CHUNK tokens, [B * T / CHUNK,CHUNK,...]."""
    if x.shape[1] % CHUNK:
        raise ValueError(f"T = {x.shape[1]} is no multiple of {CHUNK}")
    return x.reshape(B * (x.shape[1] // CHUNK), CHUNK, *x.shape[2:])


def recurrence_with(library, kernel, fault=None):
    """recurrence(qkv, g, beta, A_log, dt_bias) -> o, as the model takes it."""

    def right(qkv, g, beta, A_log, dt_bias):
        return kda(library, kernel, qkv, g, beta, A_log, dt_bias)[0]

    def carry_dropped(qkv, g, beta, A_log, dt_bias):
        """Every chunk begins with an empty state."""
        B, T = qkv.shape[:2]
        o, _ = kda(library, kernel, *(in_chunks(x, B) for x in (qkv, g, beta)), A_log, dt_bias)
        return o.reshape(B, T, *o.shape[2:])

    def state_transposed(qkv, g, beta, A_log, dt_bias):
        """A chunk reads its state with keys and values exchanged."""
        outputs, state = [], None
        for at in range(0, qkv.shape[1], CHUNK):
            part = slice(at, at + CHUNK)
            o, state = kda(library, kernel, qkv[:, part], g[:, part], beta[:, part], A_log, dt_bias, state, with_state=True)
            outputs.append(o)
            state = state.transpose(2, 3).contiguous()
        return torch.cat(outputs, 1)

    def previous_beta(qkv, g, beta, A_log, dt_bias):
        """A token is written with the strength of the one before it."""
        return right(qkv, g, torch.cat((beta[:, :1], beta[:, :-1]), 1), A_log, dt_bias)

    return {None: right, "carry-dropped": carry_dropped, "state-transposed": state_transposed, "previous-beta": previous_beta}[fault]


FAULTS = ("carry-dropped", "state-transposed", "previous-beta")
