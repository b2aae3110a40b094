"""Two KDA layers between an embedding and a head: the model of ../../tests/trained_model.hpp, but that its gates begin with channels that
keep what they have for as long as a sequence, or many times as long (`keeps`). What a channel has forgotten has no slope: where gates began as those of
flash-linear-attention's layer do, which keep channels for 0.6 to 1000 tokens, recall over 1024 tokens stayed at 39 %, over 2048 at 1 %.

    h <- h + layer(RMSNorm(h)), twice          logits = RMSNorm(h) W_head
"""
import math

import torch
import torch.nn.functional as F
from kda_cuda import kda
from torch import nn

WIDTH = 4  # tokens that the short convolution sees
EPSILON = 1e-5


class ConvolvedSwish(torch.autograd.Function):
    """swish of a causal convolution of each channel: x [B,T,C], weight [C,WIDTH], the last column meets the current token."""

    @staticmethod
    def forward(ctx, x, weight):
        w = weight.to(x.dtype)
        y = x * w[:, -1]
        for back in range(1, min(WIDTH, x.shape[1])):
            y[:, back:].addcmul_(x[:, :-back], w[:, -1 - back])
        ctx.save_for_backward(x, w, y)
        return F.silu(y)

    @staticmethod
    def backward(ctx, d):
        x, w, y = ctx.saved_tensors
        d = torch.ops.aten.silu_backward(d, y)
        dx, dw = d * w[:, -1], [(d * x).sum((0, 1), dtype=torch.float32)]
        for back in range(1, min(WIDTH, x.shape[1])):
            dx[:, :-back].addcmul_(d[:, back:], w[:, -1 - back])
            dw.append((d[:, back:] * x[:, :-back]).sum((0, 1), dtype=torch.float32))
        dw += [torch.zeros_like(dw[0])] * (WIDTH - len(dw))
        return dx, torch.stack(dw[::-1], 1)


class Looked(torch.autograd.Function):
    """Rows of a table; the gradient is added up without a look at the host, as a CUDA graph needs it."""

    @staticmethod
    def forward(ctx, table, tokens):
        ctx.save_for_backward(tokens)
        ctx.rows = table.shape[0]
        return table[tokens]

    @staticmethod
    def backward(ctx, d):
        (tokens,) = ctx.saved_tensors
        return torch.zeros(ctx.rows, d.shape[-1], dtype=d.dtype, device=d.device).index_add_(0, tokens.flatten(), d.flatten(0, 1)), None


def rms_norm(x, weight):
    """Over the last dimension; PyTorch has one since 2.4."""
    if hasattr(F, "rms_norm"):
        return F.rms_norm(x, x.shape[-1:], weight, EPSILON)
    wide = x.float()
    return (wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + EPSILON)).to(x.dtype) * weight


def uniform(generator, limit, *shape):
    return nn.Parameter((2 * torch.rand(*shape, generator=generator) - 1) * limit)


def glorot(generator, *shape):
    return uniform(generator, math.sqrt(6 / sum(shape)), *shape)


class Layer(nn.Module):
    """KimiDeltaAttention of kernels/modules/kda_layer.hpp with the softplus gate, in a pre-norm block. Projections of x stand side by
    side in one matrix."""

    def __init__(self, D, H, K, keeps, generator):
        """keeps: least and most tokens in which a channel falls to 1/e at first, log-uniform between."""
        super().__init__()
        self.H, self.K = H, K
        shapes = [H * K] * 3 + [K, K, H]  # q, k, v, gate and output gate of rank K, beta
        self.shapes = shapes + [-sum(shapes) % 8]  # rows of 16 bytes
        self.norm = nn.Parameter(torch.ones(D))
        self.project = nn.Parameter(torch.cat([glorot(generator, D, n).detach() for n in shapes] + [torch.zeros(D, self.shapes[-1])], 1))
        self.convolve = uniform(generator, WIDTH**-0.5, 3 * H * K, WIDTH)
        self.gate_up, self.output_up = uniform(generator, 0.03, K, H * K), glorot(generator, K, H * K)  # at first dt_bias rules
        self.output_bias = nn.Parameter(torch.zeros(H * K))
        self.A_log = nn.Parameter((1 + 15 * torch.rand(H, generator=generator)).log())
        tokens = torch.exp(math.log(keeps[0]) + math.log(keeps[1] / keeps[0]) * torch.rand(H, K, generator=generator))
        step = 1 / (self.A_log.detach().exp()[:, None] * tokens)
        self.dt_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))  # softplus of it is the step
        self.output_norm = nn.Parameter(torch.ones(K))
        self.output = glorot(generator, H * K, D)

    def forward(self, h, recurrence, dtype):
        """h [B,T,D] in fp32; recurrence(qkv, g, beta, A_log, dt_bias) -> o."""
        B, T, _ = h.shape
        x = rms_norm(h, self.norm).to(dtype)
        projected, gate, output_gate, beta, _ = (x @ self.project.to(dtype)).split(
            [sum(self.shapes[:3]), *self.shapes[3:]], -1)
        qkv = ConvolvedSwish.apply(projected, self.convolve).view(B, T, 3, self.H, self.K)
        g = (gate @ self.gate_up.to(dtype)).view(B, T, self.H, self.K)
        o = recurrence(qkv, g, beta, self.A_log, self.dt_bias)
        opened = torch.sigmoid(output_gate @ self.output_up.to(dtype) + self.output_bias.to(dtype))
        z = rms_norm(o, self.output_norm.to(dtype)).flatten(2) * opened
        return h + z @ self.output.to(dtype)


class Model(nn.Module):
    def __init__(self, vocabulary, keeps, H=2, K=128, layers=2, seed=1):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        D, vocabulary = H * K, -(-vocabulary // 8) * 8  # rows of 16 bytes; symbols that are no one's are never asked
        self.embedding = uniform(generator, 1, vocabulary, D)
        self.layers = nn.ModuleList(Layer(D, H, K, keeps, generator) for _ in range(layers))
        self.norm = nn.Parameter(torch.ones(D))
        self.head = uniform(generator, D**-0.5, D, vocabulary)

    def forward(self, tokens, asked, recurrence, dtype):
        """Logits of the positions that are asked, [B,A,vocabulary]."""
        h = Looked.apply(self.embedding, tokens)
        for layer in self.layers:
            h = layer(h, recurrence, dtype)
        n = rms_norm(h[:, asked], self.norm)
        return (n.to(dtype) @ self.head.to(dtype)).float()
