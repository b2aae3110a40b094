"""The recurrence that a model is given, right or with a fault: what a kernel with that fault would compute, put together from calls of the
right one. Names are those of kernels/faults."""
import torch
from kda_cuda import kda

def tokens_of_a_chunk(T):
    """Between two places where a state is handed on."""
    return 64 if T > 64 else T // 2


def in_chunks(x):
    """[B,T,...] as [B * chunks,T / chunks,...]."""
    B, T = x.shape[:2]
    chunk = tokens_of_a_chunk(T)
    return x.reshape(B * (T // chunk), chunk, *x.shape[2:])


def recurrence_with(library, kernel, fault=None):
    """recurrence(qkv, g, beta, A_log, dt_bias) -> o, as the model takes it."""

    def right(qkv, g, beta, A_log, dt_bias):
        return kda(library, kernel, qkv, g, beta, A_log, dt_bias)[0]

    def carry_dropped(qkv, g, beta, A_log, dt_bias):
        """Every chunk begins with an empty state."""
        B, T = qkv.shape[:2]
        o, _ = kda(library, kernel, *map(in_chunks, (qkv, g, beta)), A_log, dt_bias)
        return o.reshape(B, T, *o.shape[2:])

    def state_transposed(qkv, g, beta, A_log, dt_bias):
        """A chunk reads its state with keys and values exchanged."""
        outputs, state, chunk = [], None, tokens_of_a_chunk(qkv.shape[1])
        for at in range(0, qkv.shape[1], chunk):
            part = slice(at, at + chunk)
            o, state = kda(library, kernel, qkv[:, part], g[:, part], beta[:, part], A_log, dt_bias, state, with_state=True)
            outputs.append(o)
            state = state.transpose(2, 3).contiguous()
        return torch.cat(outputs, 1)

    def previous_beta(qkv, g, beta, A_log, dt_bias):
        """A token is written with the strength of the one before it."""
        return right(qkv, g, torch.cat((beta[:, :1], beta[:, :-1]), 1), A_log, dt_bias)

    return {None: right, "carry-dropped": carry_dropped, "state-transposed": state_transposed, "previous-beta": previous_beta}[fault]


FAULTS = ("carry-dropped", "state-transposed", "previous-beta")
