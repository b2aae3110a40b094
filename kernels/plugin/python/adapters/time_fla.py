"""Times flash-linear-attention's Triton kernels on the shapes that kdacheck_cuda_check times (pip install fla-core).

    python kernels/plugin/python/adapters/time_fla.py ROWS.json [TEXT]
    kdacheck_cuda_check --peers ROWS.json --json RESULT

The first writes a row for each case whose name contains TEXT, the second puts them beside its own, on the same machine. Medians of replays
of a CUDA graph; where a call cannot be captured, of calls, and the row's kernel says so. Inputs are drawn as there: bf16, bounded gate,
l2norm and sigmoid of beta inside, fp32 final state.
"""
import json
import math
import statistics
import sys

import torch
from fla.ops.generalized_delta_rule import chunk_dplr_delta_rule
from fla.ops.kda import chunk_kda, fused_recurrent_kda

FORWARD = [(1, 8192, 96), (1, 8192, 32), (1, 8192, 4), (8, 1024, 32), (1, 512, 32)]
DPLR = [(1, 8192, 96), (1, 8192, 32), (1, 8192, 16), (8, 1024, 32)]
DECODE = [(1, 1, 32), (64, 1, 32), (256, 1, 32)]
K = V = 128


def normal(*shape, mean=0.0, deviation=1.0, dtype=torch.bfloat16):
    return (mean + deviation * torch.randn(*shape, device="cuda")).to(dtype)


def inputs(B, T, H):
    x = {name: normal(B, T, H, K) for name in ("q", "k", "v")}
    x |= {"g": normal(B, T, H, K, mean=-2.0), "beta": normal(B, T, H)}
    x |= {"A_log": normal(H, deviation=0.3, dtype=torch.float32), "dt_bias": normal(H * K, deviation=0.5, dtype=torch.float32)}
    return x


OPTIONS = {"scale": 1 / math.sqrt(K), "output_final_state": True, "use_qk_l2norm_in_kernel": True, "use_gate_in_kernel": True,
           "use_beta_sigmoid_in_kernel": True, "lower_bound": -5.0}


def forward(B, T, H):
    x = inputs(B, T, H)
    return torch.no_grad()(lambda: chunk_kda(**x, **OPTIONS))


def both(B, T, H):
    x = {name: value.requires_grad_() for name, value in inputs(B, T, H).items()}
    d_o, d_state = normal(B, T, H, V), normal(B, H, K, V, dtype=torch.float32)

    def call():
        o, state = chunk_kda(**x, **OPTIONS)
        return torch.autograd.grad((o, state), list(x.values()), (d_o, d_state))

    return call


def dplr(B, T, H):
    size = 0.5 / math.sqrt(K)
    q, k, v = (normal(B, T, H, K) for _ in range(3))
    a, b = (normal(B, T, H, K, deviation=size) for _ in range(2))
    gk = -5 * torch.sigmoid(normal(B, T, H, K, mean=-2.0))
    return torch.no_grad()(lambda: chunk_dplr_delta_rule(q, k, v, a, b, gk, scale=1 / math.sqrt(K), output_final_state=True))


def decode(B, T, H):
    x, state = inputs(B, T, H), normal(B, H, K, V, deviation=0.1, dtype=torch.float32)
    return torch.no_grad()(lambda: fused_recurrent_kda(**x, **OPTIONS, initial_state=state))


def replayed(call, replays):
    """Milliseconds of each replay, and how they were made."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    run, how = call, "call"
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        run, how = graph.replay, "graph"
    except RuntimeError as error:
        print(f"not captured: {error}", file=sys.stderr)
        torch.cuda.synchronize()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(replays + 1)]
    run()
    events[0].record()
    for event in events[1:]:
        run()
        event.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in zip(events, events[1:])], how


def main():
    to, text = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    rows = []
    for name, cases, make, bytes_of_token, replays in (
            ("chunk_kda", FORWARD, forward, 1282, 50), ("chunk_kda fwd+bwd", FORWARD, both, 3594, 20), ("chunk_dplr", DPLR, dplr, 1792, 50),
            ("fused_recurrent_kda decode", DECODE, decode, 1282, 100)):
        for B, T, H in cases:
            case = f"{'decode ' if make is decode else ''}B{B}{'' if make is decode else f' T{T}'} H{H}"
            if text not in f"{name} {case}":
                continue
            states = (2 if make in (both, decode) else 1) * B * H * K * V * 4
            try:
                times, how = replayed(make(B, T, H), replays)
            except Exception as error:  # a peer's failure is a row that is missing, not the end
                print(f"{name} {case}: {type(error).__name__}: {error}", file=sys.stderr)
                continue
            finally:
                torch.cuda.empty_cache()
            rows.append({"kernel": f"fla {name}" + ("" if how == "graph" else " (called)"), "case": case,
                         "median_ms": statistics.median(times), "least_ms": min(times), "bytes": bytes_of_token * B * T * H + states})
            print(f"{rows[-1]['kernel']:32} {case:20} {rows[-1]['median_ms']:.4f} ms", flush=True)
            with open(to, "w") as file:
                json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
