"""Records flash-linear-attention's KimiDeltaAttention layer, and a stack of its KDA blocks with its latent attention, as parity files.

    pip install fla-core==0.6.0 flash-linear-attention==0.6.0 transformers safetensors einops       (and PyTorch with CUDA, Triton)
    TRITON_F32_DEFAULT=tf32x3 python record_fla.py fp32 layer FOLDER    # matrix products of fp32 to 22 bits, not in tf32
    TRITON_F32_DEFAULT=tf32x3 python record_fla.py fp32 stack FOLDER
    python record_fla.py bf16 layer FOLDER                              # fp32 parameters under autocast to bf16, as the package is trained

tf32x3 splits an operand into two tf32 numbers and leaves out the product of the lower ones; products in ieee fp32 take minutes to
compile.

Weights, inputs and losses are drawn here on the CPU from a seed; outputs, states and gradients are the package's on a CUDA device.
Tensors are named as in golden/module_golden.hpp and stored in fp32; every matrix as y = x W, the transpose of nn.Linear's.
KDA's state is kept V-first there; of the convolutions' states the last width - 1 inputs are kept, oldest first.
"""
import datetime
import importlib.metadata as installed
import os
import sys
from pathlib import Path

import torch

PRECISION, WHAT, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])
DEVICE = os.environ.get("RECORD_DEVICE", "cuda")
if PRECISION not in ("fp32", "bf16") or (PRECISION == "fp32") != (os.environ.get("TRITON_F32_DEFAULT") == "tf32x3"):
    sys.exit("the first argument is fp32, with TRITON_F32_DEFAULT=tf32x3, or bf16, without it")


def softmax_attention(q, k, v, causal, window_size):
    """Stands in for the flash_attn package, which computes the same: [B,T,H,.], here in whole matrices of fp32."""
    assert causal and window_size == (-1, -1)
    q, k, v = (tensor.float().transpose(1, 2) for tensor in (q, k, v))
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return (scores.masked_fill(later, float("-inf")).softmax(-1) @ v).transpose(1, 2)


import fla.layers.kda as layer_of_fla  # noqa: E402
import fla.layers.mla as latent_of_fla  # noqa: E402
import fla.ops.kda.chunk_intra as solve_of_fla  # noqa: E402
import triton.language as tl  # noqa: E402
from fla.models.kda.configuration_kda import KDAConfig  # noqa: E402
from fla.models.kda.modeling_kda import KDABlock  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from triton.runtime.autotuner import Autotuner  # noqa: E402

tuned = Autotuner._bench


def first_that_runs(self, *arguments, config, **meta):
    """Compilation of every tuning configuration takes minutes, and any of them computes the same up to rounding."""
    if config is self.configs[0]:
        self.found = False
    times = [float("inf")] * 3 if self.found else tuned(self, *arguments, config=config, **meta)
    self.found = self.found or times[0] < float("inf")
    return times


Autotuner.found, Autotuner._bench = False, first_that_runs
latent_of_fla.flash_attn_func = softmax_attention
if PRECISION == "fp32":  # the triangular solve has a constant of its own
    solve_of_fla.SOLVE_TRIL_DOT_PRECISION = tl.constexpr("tf32x3")
torch.backends.cuda.matmul.allow_tf32 = False

T = 70  # one chunk of 64 and a rest
KDA = {  # ours: theirs
    "q_proj": "q_proj.weight", "k_proj": "k_proj.weight", "v_proj": "v_proj.weight",
    "q_conv": "q_conv1d.weight", "k_conv": "k_conv1d.weight", "v_conv": "v_conv1d.weight",
    "f_down": "f_proj.0.weight", "f_up": "f_proj.1.weight", "A_log": "A_log", "dt_bias": "dt_bias", "b_proj": "b_proj.weight",
    "g_down": "g_proj.0.weight", "g_up": "g_proj.1.weight", "g_bias": "g_proj.1.bias", "o_norm": "o_norm.weight",
    "o_proj": "o_proj.weight",
}
MLA = {"q_proj": "q_proj.weight", "kv_down": "kv_proj.0.weight", "kv_norm": "kv_proj.1.weight", "kv_up": "kv_proj.2.weight",
       "k_shared": "k_rope.weight", "o_proj": "o_proj.weight"}


class Remembered:
    """The least that the layer asks of its cache."""

    def __init__(self):
        self.state = {}

    def __len__(self):
        return len(self.state)

    def __getitem__(self, layer):
        return self.state[layer]

    def update(self, layer_idx, offset, **state):
        self.state[layer_idx] = state


class Unrotated(torch.nn.Module):
    """No position encoding, as Kimi Linear has it."""

    def forward(self, q, k, **positions):
        return q, k


def varied(module, *names):
    """One value all through would hide a wrong order."""
    with torch.no_grad():
        for name in names:
            parameter = module.get_parameter(name)
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return module


def ours(name, tensor):
    """Their tensor in our layout: matrices turned, convolutions [channels,1,width] flattened."""
    if name.endswith("_conv"):
        return tensor.reshape(tensor.shape[0], -1)
    return tensor.t() if tensor.dim() == 2 else tensor


def keep(tensors, module, names, prefix="", gradients=True):
    for name, theirs in names.items():
        parameter = module.get_parameter(theirs)
        tensors[f"parameter.{prefix}{name}"] = ours(name, parameter)
        if gradients:
            tensors[f"gradient.{prefix}{name}"] = ours(name, parameter.grad)


def save(what, tensors, **sizes):
    versions = [f"{p} {installed.version(p)}" for p in ("flash-linear-attention", "fla-core", "torch", "triton", "transformers")]
    machine = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    stored = {name: tensor.detach().float().cpu().contiguous().clone() for name, tensor in tensors.items()}
    for name, tensor in stored.items():
        assert tensor.isfinite().all(), name
    metadata = {
        "what": f"{what}, {PRECISION}", "source": f"{', '.join(versions)}, {machine}, {datetime.date.today()}",
        "command": f"{'TRITON_F32_DEFAULT=tf32x3 ' if PRECISION == 'fp32' else ''}python golden/parity/record_fla.py {PRECISION} {WHAT} FOLDER",
        "licence": "numbers computed by the packages, whose code is MIT (flash-linear-attention) and under licences of their own",
    } | {name: str(size) for name, size in sizes.items()}
    path = FOLDER / f"{what}.{PRECISION}.safetensors"
    save_file(stored, path, metadata)
    print(path.name, path.stat().st_size, "bytes; largest output", stored["output.y"].abs().max().item())


def running():
    return torch.autocast(DEVICE, torch.bfloat16, enabled=PRECISION == "bf16")


def states_of(cache, prefix):
    state = cache.state[0]
    kept = {f"{prefix}memory": state["recurrent_state"].transpose(-1, -2)}  # [N,HV,V,K] there
    for name, history in zip(("q_conv", "k_conv", "v_conv"), state["conv_state"]):
        kept[f"{prefix}{name}"] = history[..., -3:].transpose(-1, -2)  # [N,channels,width] there
    return kept


def record_layer():
    torch.manual_seed(1)
    D, H, K, V = 64, 2, 32, 32
    layer = varied(layer_of_fla.KimiDeltaAttention(hidden_size=D, head_dim=K, num_heads=H, layer_idx=0), "g_proj.1.bias", "o_norm.weight")
    x, loss = torch.randn(1, T, D), torch.randn(1, T, D)
    layer, x, loss = layer.to(DEVICE), x.to(DEVICE).requires_grad_(), loss.to(DEVICE)
    tensors = {"call.x": x[0]}
    with running():
        cache = Remembered()
        layer.train()
        y = layer(x, past_key_values=cache, use_cache=True)[0]  # chunk_kda
        tensors |= {"output.y": y[0], **states_of(cache, "next_state.")}
        layer.eval()
        with torch.no_grad():
            layer.mode, cache = "fused_recurrent", Remembered()
            y_recurrent = layer(x, past_key_values=cache, use_cache=True)[0]
            tensors |= {"recurrent.y": y_recurrent[0], **states_of(cache, "recurrent.")}
            layer.mode, cache = "chunk", Remembered()
            pieces = [layer(x[:, :65], past_key_values=cache, use_cache=True)[0]]
            for t in range(65, T):
                pieces.append(layer(x[:, t:t + 1], past_key_values=cache, use_cache=True)[0])
            tensors |= {"decoded.y": torch.cat(pieces, 1)[0], **states_of(cache, "decoded.")}
    if PRECISION == "fp32":
        y.backward(loss)
        tensors |= {"cotangent.y": loss[0], "gradient.x": x.grad[0]}
    keep(tensors, layer, KDA, gradients=PRECISION == "fp32")
    save("KimiDeltaAttention", tensors, D=D, H=H, K=K, V=V)
    print("chunk and recurrent differ by", (y - y_recurrent).abs().max().item())


def record_stack():
    """Three KDA blocks and one of latent attention. Their channel mixers are there, with a last matrix of zeros: they add 0."""
    torch.manual_seed(2)
    D, H, K, V, shared, rank = 32, 2, 16, 16, 8, 24
    config = KDAConfig(hidden_size=D, head_dim=K, num_heads=H, norm_eps=1e-5, hidden_ratio=1)
    blocks = [varied(KDABlock(config, layer), "attn_norm.weight") for layer in range(4)]
    for block in blocks[:3]:
        varied(block.attn, "g_proj.1.bias", "o_norm.weight")
    blocks[3].attn = varied(latent_of_fla.MultiheadLatentAttention(hidden_size=D, num_heads=H, q_lora_rank=None, qk_rope_head_dim=shared, kv_lora_rank=rank,
                                                     v_head_dim=V, qk_nope_head_dim=K, qk_head_dim=K + shared, layer_idx=3), "kv_proj.1.weight")
    blocks[3].attn.rotary = Unrotated()
    for block in blocks:
        torch.nn.init.zeros_(block.mlp.down_proj.weight)
        block.to(DEVICE).train()
    x, loss = torch.randn(1, T, D), torch.randn(1, T, D)
    x, loss = x.to(DEVICE).requires_grad_(), loss.to(DEVICE)
    with running():
        h = x
        for block in blocks:
            h = block(h)[0]
    h.backward(loss)
    tensors = {"call.x": x[0], "cotangent.y": loss[0], "output.y": h[0], "gradient.x": x.grad[0]}
    for layer, block in enumerate(blocks):
        keep(tensors, block, {"norm": "attn_norm.weight"}, f"layers.{layer}.")
        keep(tensors, block.attn, KDA if layer < 3 else MLA, f"layers.{layer}.")
    save("HybridAttention", tensors, D=D, H=H, K=K, V=V, K_shared=shared, rank=rank)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    {"layer": record_layer, "stack": record_stack}[WHAT]()
