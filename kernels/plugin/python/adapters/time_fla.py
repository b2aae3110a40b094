"""Times flash-linear-attention's Triton kernels on what kdacheck_cuda_check times its own on, and says how far they are from double there
(pip install fla-core einops safetensors).

    kdacheck_cuda_check --write-cases CASES.safetensors
    python kernels/plugin/python/adapters/time_fla.py CASES.safetensors ROWS.json [--seconds 140] [--case TEXT]
    kdacheck_cuda_check --peers ROWS.json --json RESULT

All on one machine. Medians of replays of CUDA graphs that take turns where one set of inputs would stay in the cache; where a call cannot be
captured, of calls, and the row's kernel says so. Options are those that the package recommends for such inputs (safe_gate where decays
are bounded). Triton compiles for minutes: other processes do that first, several at a time; no case is begun after --seconds.
"""
import argparse
import importlib.metadata
import json
import math
import os
import statistics
import subprocess
import sys
import time

import torch

import compiled_at_once
from peer_cases import LOWER_BOUND, K, PeerCases, V

INSIDE = {"use_qk_l2norm_in_kernel": True, "use_gate_in_kernel": True, "use_beta_sigmoid_in_kernel": True, "lower_bound": LOWER_BOUND}
TIMED = {"scale": 1 / math.sqrt(K), "output_final_state": True, **INSIDE}


def decay(x):
    """ln alpha of the bounded gate, which chunk_dplr takes ready-made."""
    B, T, H, _ = x["g"].shape
    raw = x["g"].float() + x["dt_bias"].view(H, K)
    return LOWER_BOUND * torch.sigmoid(x["A_log"].exp().view(H, 1) * raw)


def normalised(x):
    return (x.float() / torch.sqrt((x.float() ** 2).sum(-1, keepdim=True) + 1e-6)).to(x.dtype)


def chunk_kda(x):
    from fla.ops.kda import chunk_kda

    return torch.no_grad()(lambda: chunk_kda(**x, **TIMED, safe_gate=True))


def chunk_kda_both(x):
    from fla.ops.kda import chunk_kda

    leaves = [value.requires_grad_() for value in x.values()]
    d_o, d_state = torch.randn_like(x["v"]), torch.randn(x["v"].shape[0], x["v"].shape[2], K, V, device=x["v"].device)

    def call():
        o, state = chunk_kda(**x, **TIMED, safe_gate=True)
        torch.autograd.grad((o, state), leaves, (d_o, d_state))
        return o.detach(), state.detach()

    return call


def chunk_dplr(x):
    from fla.ops.generalized_delta_rule import chunk_dplr_delta_rule

    g, q, k = decay(x), normalised(x["q"]), normalised(x["k"])
    a, b = x["b"], -x["a"]  # S = Diag(alpha) S + b a^T S + k v^T there
    return torch.no_grad()(
        lambda: chunk_dplr_delta_rule(q, k, x["v"], a, b, g, scale=TIMED["scale"], output_final_state=True, lower_bound=LOWER_BOUND))


def fused_recurrent_kda(x):
    from fla.ops.kda import fused_recurrent_kda

    return torch.no_grad()(lambda: fused_recurrent_kda(**x, **TIMED))


C = 16  # operations are counted as for the kernels here, whatever chunks a peer works in
# name, kind of case, how to make the call, bytes and operations of a token and head, states that must move, runs
PEERS = (("chunk_kda", "kda", chunk_kda, 1282, 6 * K * K + 8 * C * K, 1, 100), ("fused_recurrent_kda", "decode", fused_recurrent_kda, 1282, 7 * K * K, 2, 200),
         ("chunk_kda fwd+bwd", "kda", chunk_kda_both, 3594, 22 * K * K + 30 * C * K, 3, 100),
         ("chunk_dplr", "dplr", chunk_dplr, 1792, 8 * K * K + 16 * C * K, 1, 100))
NOTES = {"chunk_dplr": "q and k normalised and decays computed before; q and k stored in bf16, decays in fp32"}


def bytes_of(peer, case):
    return peer[3] * case["B"] * case["T"] * case["H"] + peer[5] * case["B"] * case["H"] * K * V * 4


def calls(cases, peer, case):
    """One call for each set of inputs: as many as exceed the cache."""
    count = min(max(int(200e6 / bytes_of(peer, case)) + 1, 1), 8)
    return [peer[2](cases.timed_inputs(case, turn)) for turn in range(count)]


def timed(work, runs):
    """Milliseconds of each run, and how they were started."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in work:
            for _ in range(2):
                call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    run, how = list(work), "call"
    try:
        graphs = []
        for call in work:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                call()
            graphs.append(graph)
        run, how = [graph.replay for graph in graphs], "graph"
    except RuntimeError as error:
        print(f"not captured: {error}", file=sys.stderr)
        torch.cuda.synchronize()

    def times(each):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]
        for i in range(5):
            each[i % len(each)]()
        events[0].record()
        for i, event in enumerate(events[1:]):
            each[i % len(each)]()
            event.record()
        torch.cuda.synchronize()
        return [before.elapsed_time(after) for before, after in zip(events, events[1:])]

    replayed = times(run)
    return replayed, statistics.median(times(list(work))) if how == "graph" else statistics.median(replayed), how


def time_peer(cases, peer, case):
    work = calls(cases, peer, case)
    error_o, error_state = cases.timed_errors(case, *work[0]())
    replayed, called, how = timed(work, peer[6])
    row = {"kernel": f"fla {peer[0]}" + ("" if how == "graph" else " (called)"), "case": case["case"], "median_ms": statistics.median(replayed),
           "least_ms": min(replayed), "call_ms": called, "runs": peer[6], "bytes": bytes_of(peer, case),
           "flops": peer[4] * case["B"] * case["T"] * case["H"], "error_o": error_o, "error_state": error_state}
    if peer[0] in NOTES:
        row["note"] = NOTES[peer[0]]
    return row


def regime_call(regime, x):
    """The forward pass of each kernel that takes a regime, by name, and the tensors that it differentiates with respect to."""
    from fla.ops.generalized_delta_rule import chunk_dplr_delta_rule
    from fla.ops.kda import chunk_kda, fused_recurrent_kda

    state, scale = x.get("initial_state"), regime["scale"]
    if regime["rule"] == "dplr":
        return {"chunk_dplr": lambda: chunk_dplr_delta_rule(x["q"], x["k"], x["v"], x["b"], -x["a"], x["g"], scale, state, True)}
    words = {"use_qk_l2norm_in_kernel": regime["l2norm"], "use_beta_sigmoid_in_kernel": regime["beta"] == "sigmoid"}
    if regime["gate"] == "bounded":
        words |= {"use_gate_in_kernel": True, "lower_bound": regime["lower_bound"], "A_log": x["A_log"], "dt_bias": x["dt_bias"]}
    given = [x[name] for name in ("q", "k", "v", "g", "beta")]
    return {"chunk_kda": lambda: chunk_kda(*given, scale=scale, initial_state=state, output_final_state=True, safe_gate=True, **words),
            "fused_recurrent_kda": torch.no_grad()(
                lambda: fused_recurrent_kda(*given, scale=scale, initial_state=state, output_final_state=True, **words))}


def regime_rows(cases, regime):
    """Errors of outputs and of gradients, with each kernel's first configuration."""
    x = cases.regime_tensors(regime)
    names = [name for name in ("q", "k", "v", "g", "beta", "a", "b", "A_log", "dt_bias", "initial_state") if name in x]
    for name in names:
        x[name].requires_grad_()
    accuracy, gradients = [], []
    for kernel, call in regime_call(regime, x).items():
        o, state = call()
        errors = cases.regime_errors(x, o.detach(), state.detach())
        accuracy.append({"regime": regime["regime"], "kernel": f"fla {kernel}", "o": errors[0], "state": errors[1]})
        if o.requires_grad:
            found = torch.autograd.grad((o, state), [x[name] for name in names], (x["d_o"], x["d_final_state"]))
            gradients.append({"regime": regime["regime"], "kernel": f"fla {kernel}"} | cases.gradient_errors(regime, x, dict(zip(names, found))))
    return accuracy, gradients


def jobs(cases, text):
    """Pairs of peer and case, those of the targets first."""
    pairs = [(peer, case) for peer in PEERS for case in cases.timed if
             case["kind"] == peer[1] and text in f"{peer[0]} {case['case']}" and case["T"] != 4 and case["H"] != 16 and
             (peer[2] is not chunk_kda_both or case["H"] == 96)]
    return sorted(pairs, key=lambda pair: (pair[1]["H"] != 96 and pair[1]["kind"] != "decode", -pair[1]["H"]))


def in_processes(arguments, cases, deadline):
    """Compiles what will run: for each kernel and number of heads two processes, with half of the configurations each."""
    wanted = sorted({f"{peer[0]}|{case['H']}|{half}" for peer, case in jobs(cases, arguments.case) for half in (0, 1)} | {"regimes|0|0"})
    threads = max(2, (os.cpu_count() or 2) * 2 // len(wanted))
    running = [subprocess.Popen([sys.executable, __file__, arguments.cases, arguments.rows, "--compile", job, "--threads", str(threads)])
               for job in wanted]
    for process in running:
        try:
            process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def compile_one(arguments):
    name, heads, half = arguments.compile.split("|")
    compiled_at_once.compile_all(arguments.threads, int(half), 2, 1 if name == "regimes" else None)
    cases = PeerCases(arguments.cases, "cuda")
    if name == "regimes":
        rows = {"accuracy": [], "gradients": []}
        for regime in cases.regimes:
            try:
                accuracy, gradients = regime_rows(cases, regime)
            except Exception as error:
                print(f"{regime['regime']}: {type(error).__name__}: {error}", file=sys.stderr)
                continue
            rows["accuracy"] += accuracy
            rows["gradients"] += gradients
            with open(arguments.rows + ".regimes", "w") as file:
                json.dump(rows, file)
        return
    done = set()
    for peer, case in jobs(cases, ""):
        if peer[0] == name and case["H"] == int(heads) and case["B"] not in done:
            peer[2](cases.timed_inputs(case))()
            torch.cuda.synchronize()
            done.add(case["B"])


def write(to, rows):
    with open(to, "w") as file:
        json.dump(rows, file, indent=1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases")
    parser.add_argument("rows")
    parser.add_argument("--seconds", type=float, default=140)
    parser.add_argument("--case", default="")
    parser.add_argument("--compile", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.compile:
        return compile_one(arguments)
    start = time.monotonic()
    cases = PeerCases(arguments.cases, "cuda")
    in_processes(arguments, cases, start + 0.7 * arguments.seconds)
    print(f"compiled after {time.monotonic() - start:.0f} s", flush=True)
    compiled_at_once.try_briefly()
    versions = {name: importlib.metadata.version(name) for name in ("torch", "triton", "fla-core")}
    rows = {"versions": versions, "timing": [], "accuracy": [], "gradients": []}
    if os.path.exists(arguments.rows + ".regimes"):
        with open(arguments.rows + ".regimes") as file:
            rows |= json.load(file)
        for row in rows["accuracy"]:
            print(f"{row['kernel']:26} {row['regime']:30} errs by {row['o']:.1e} {row['state']:.1e}", flush=True)
    write(arguments.rows, rows)
    for peer, case in jobs(cases, arguments.case):
        if time.monotonic() - start > arguments.seconds:
            print(f"{peer[0]} {case['case']}: no time left", file=sys.stderr)
            continue
        try:
            row = time_peer(cases, peer, case)
        except Exception as error:  # a peer's failure is a row that is missing, not the end
            print(f"{peer[0]} {case['case']}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        finally:
            torch.cuda.empty_cache()
        rows["timing"].append(row)
        print(f"{row['kernel']:26} {row['case']:16} {row['median_ms']:.4f} ms, called {row['call_ms']:.4f}, errs by {row['error_o']:.1e} "
              f"{row['error_state']:.1e} ({time.monotonic() - start:.0f} s)", flush=True)
        write(arguments.rows, rows)


if __name__ == "__main__":
    sys.exit(main())
