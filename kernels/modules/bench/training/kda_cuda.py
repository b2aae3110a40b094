"""KDA with the kernels of libkdacheck_cuda.so (kernels/cuda/kdacheck_cuda.h) as a differentiable function of PyTorch, and the same
recurrence token by token in PyTorch's own operations.

    library = Library("build/kernels/cuda/libkdacheck_cuda.so")
    o, final_state = kda(library, "accurate", qkv, g, beta, A_log, dt_bias, initial_state)

qkv [B,T,3,H,K] holds q, k and v side by side, before l2norm; g [B,T,H,K] is what the softplus gate takes; beta [B,T,H] logits; A_log [H],
dt_bias [H,K]; initial_state [B,H,K,K] or None, fp32. qkv and o are bf16; g and beta bf16 or fp32. Scale K^{-1/2}. Gradients of all of
them; nothing synchronises, so calls can be captured in a CUDA graph.
"""
import ctypes
import math

import torch
import torch.nn.functional as F

KERNELS = {"recurrence": 0, "fast": 1, "accurate": 2}
FORMATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
KDA, SOFTPLUS, BETA_SIGMOID = 0, 1, 1


class Result(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int), ("text", ctypes.c_char * 160)]


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("format", ctypes.c_int), ("stride", ctypes.c_int64 * 3)]


class Problem(ctypes.Structure):
    _fields_ = [*((n, ctypes.c_int64) for n in ("B", "T", "H", "HV", "K", "V")),
                *((n, ctypes.c_int) for n in ("rule", "gate", "beta_form", "l2norm", "state_v_first")),
                *((n, ctypes.c_float) for n in ("lower_bound", "scale")),
                *((n, Tensor) for n in ("q", "k", "v", "g", "beta", "a", "b")),
                *((n, ctypes.c_void_p) for n in ("A_log", "dt_bias", "initial_state", "final_state")),
                ("o", Tensor), ("cu_seqlens", ctypes.c_void_p), ("cu_seqlens_host", ctypes.c_void_p), ("sequences", ctypes.c_int64),
                ("state", ctypes.c_void_p), ("slot", ctypes.c_void_p), ("slots", ctypes.c_int64)]


class Gradients(ctypes.Structure):
    _fields_ = [("d_o", Tensor), ("d_final_state", ctypes.c_void_p), *((n, Tensor) for n in ("dq", "dk", "dv", "dg", "dbeta", "da", "db")),
                *((n, ctypes.c_void_p) for n in ("d_A_log", "d_dt_bias", "d_initial_state"))]


def described(x):
    """A view of a tensor whose last dimension is dense, outermost stride first."""
    if x.shape[-1] > 1 and x.stride(-1) != 1:
        raise ValueError("the last dimension is not dense")
    if x.dim() == 3:  # beta: heads are the dense dimension
        return Tensor(x.data_ptr(), FORMATS[x.dtype], (ctypes.c_int64 * 3)(x.stride(0), x.stride(1), 0))
    return Tensor(x.data_ptr(), FORMATS[x.dtype], (ctypes.c_int64 * 3)(*x.stride()[:3]))


def numbers(x):
    """Address of a dense fp32 tensor, or None."""
    if x is None:
        return None
    if x.dtype != torch.float32 or not x.is_contiguous():
        raise ValueError("dense fp32 numbers are due")
    return x.data_ptr()


class Library:
    """The shared library at `path`. Raises OSError where it cannot be loaded, RuntimeError with its sentence where a call is refused."""

    def __init__(self, path):
        self.functions = ctypes.CDLL(path)
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        for name, arguments in {"device": [], "workspace_bytes": [ctypes.c_int, pointer, pointer],
                                "backward_workspace_bytes": [ctypes.c_int, pointer, pointer],
                                "forward": [ctypes.c_int, pointer, pointer, size, pointer],
                                "backward": [ctypes.c_int, pointer, pointer, pointer, size, pointer]}.items():
            function = getattr(self.functions, "kdacheck_cuda_" + name)
            function.restype, function.argtypes = Result, arguments

    def call(self, name, *arguments):
        result = getattr(self.functions, "kdacheck_cuda_" + name)(*arguments)
        if result.status != 0:
            raise RuntimeError(f"kdacheck_cuda_{name}: {result.text.decode()}")

    def run(self, kernel, problem, gradients, like):
        """Forward, or backward where gradients are given, in a workspace of its own on the current stream of like's device."""
        name, tensors = ("forward", (problem,)) if gradients is None else ("backward", (problem, gradients))
        due = ctypes.c_size_t()
        self.call("workspace_bytes" if gradients is None else "backward_workspace_bytes", kernel, ctypes.byref(problem), ctypes.byref(due))
        workspace = torch.empty(due.value + 256, dtype=torch.uint8, device=like.device)
        at = (workspace.data_ptr() + 255) // 256 * 256
        stream = torch.cuda.current_stream(like.device).cuda_stream if like.is_cuda else None
        self.call(name, kernel, *map(ctypes.byref, tensors), at, due.value, stream)


def problem_of(qkv, g, beta, A_log, dt_bias, initial_state, o=None, final_state=None):
    B, T, _, H, K = qkv.shape
    q, k, v = qkv.unbind(2)
    return Problem(B=B, T=T, H=H, HV=H, K=K, V=K, rule=KDA, gate=SOFTPLUS, beta_form=BETA_SIGMOID, l2norm=1, scale=1 / math.sqrt(K),
                   q=described(q), k=described(k), v=described(v), g=described(g), beta=described(beta), A_log=numbers(A_log),
                   dt_bias=numbers(dt_bias), initial_state=numbers(initial_state), o=described(o) if o is not None else Tensor(),
                   final_state=numbers(final_state))


class Kda(torch.autograd.Function):
    @staticmethod
    def forward(ctx, library, kernel, with_state, qkv, g, beta, A_log, dt_bias, initial_state):
        B, T, _, H, K = qkv.shape
        o = torch.empty(B, T, H, K, dtype=qkv.dtype, device=qkv.device)
        final_state = torch.empty(B, H, K, K, dtype=torch.float32, device=qkv.device) if with_state else None
        library.run(KERNELS[kernel], problem_of(qkv, g, beta, A_log, dt_bias, initial_state, o, final_state), None, qkv)
        ctx.save_for_backward(qkv, g, beta, A_log, dt_bias, initial_state)
        ctx.library, ctx.kernel = library, kernel
        ctx.set_materialize_grads(False)
        return o, final_state

    @staticmethod
    def backward(ctx, d_o, d_final_state):
        qkv, g, beta, A_log, dt_bias, initial_state = ctx.saved_tensors
        if d_o is None:
            d_o = torch.zeros_like(qkv[:, :, 0])
        d_o = d_o.contiguous()
        d_final_state = d_final_state.contiguous() if d_final_state is not None else None
        d_qkv = torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)
        dq, dk, dv = d_qkv.unbind(2)
        dense = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (g, beta, A_log, dt_bias)]
        dg, dbeta, d_A_log, d_dt_bias = dense
        d_initial_state = torch.empty_like(initial_state) if initial_state is not None else None
        gradients = Gradients(d_o=described(d_o), d_final_state=numbers(d_final_state), dq=described(dq), dk=described(dk), dv=described(dv),
                              dg=described(dg), dbeta=described(dbeta), d_A_log=numbers(d_A_log), d_dt_bias=numbers(d_dt_bias),
                              d_initial_state=numbers(d_initial_state))
        ctx.library.run(KERNELS[ctx.kernel], problem_of(qkv, g, beta, A_log, dt_bias, initial_state), gradients, qkv)
        return None, None, None, d_qkv, dg, dbeta, d_A_log, d_dt_bias, d_initial_state


def kda(library, kernel, qkv, g, beta, A_log, dt_bias, initial_state=None, with_state=False):
    """o [B,T,H,K] in qkv's format, and the final state [B,H,K,K] in fp32 or None. `library` None: token by token."""
    if library is not None:
        return Kda.apply(library, kernel, with_state, qkv, g, beta, A_log, dt_bias, initial_state)
    return kda_token_by_token(qkv, g, beta, A_log, dt_bias, initial_state)


def kda_token_by_token(qkv, g, beta, A_log, dt_bias, initial_state=None):
    """The recurrence as it is written, in the format of A_log; differentiated by autograd."""
    B, T, _, H, K = qkv.shape
    q, k, v = qkv.to(A_log.dtype).unbind(2)
    q, k = (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    alpha = torch.exp(-torch.exp(A_log)[:, None] * F.softplus(g + dt_bias))
    beta = torch.sigmoid(beta.to(A_log.dtype))
    S = torch.zeros(B, H, K, K, dtype=A_log.dtype, device=qkv.device) if initial_state is None else initial_state
    o = []
    for t in range(T):
        S = alpha[:, t, :, :, None] * S
        u = beta[:, t, :, None] * (v[:, t] - torch.einsum("bhk,bhkv->bhv", k[:, t], S))
        S = S + k[:, t, :, :, None] * u[:, :, None, :]
        o.append(torch.einsum("bhk,bhkv->bhv", q[:, t] / math.sqrt(K), S))
    return torch.stack(o, 1).to(qkv.dtype), S
