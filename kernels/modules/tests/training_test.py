"""The training program of bench/training: tasks are what they say, the model reads nothing ahead and its own backward passes are right, two layers
learn one of the tasks in small and forget it with a fault, and arguments reach the CUDA kernels in their places.

    training_test.py [libkdacheck_cuda_emulated.so]

Skipped (status 5) where PyTorch is not installed.
"""
import sys
from pathlib import Path

try:
    import torch
except ImportError:
    print("skipped: this Python has no torch")
    sys.exit(5)

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench" / "training"))
import model
import synthetic_tasks
import torch.nn.functional as F
from faults import FAULTS, recurrence_with
from kda_cuda import Library
from self_check import inputs_and_cotangents, self_check
from tasks import task_named

torch.set_num_threads(1)


def stacks_are_followed():
    task, pops = task_named("stack", 256), 0
    for tokens, targets in zip(*task.draw(torch.Generator().manual_seed(3), 20)):
        stacks = [[] for _ in range(64)]
        for command, symbol, asked in zip(tokens[::2].tolist(), tokens[1::2].tolist(), targets.tolist()):
            assert 128 <= symbol < task.vocabulary
            if command < 64:
                stacks[command].append(symbol)
                assert asked == -1
            else:
                pops += 1
                assert stacks[command - 64].pop() == symbol == asked
    assert pops > 400, pops  # of 2560 commands, most of which meet an empty stack


def recall_asks_what_was_told():
    task = task_named("mqar", 64)
    for tokens, targets in zip(*task.draw(torch.Generator().manual_seed(3), 20)):
        told = dict(zip(tokens[:32:2].tolist(), tokens[1:32:2].tolist()))
        asked = tokens[task.asked].tolist()
        assert len(told) == 16 and sorted(asked) == sorted(told) and asked != list(told)
        assert [told[key] for key in asked] == targets.tolist() and not tokens[32:48].any()
        assert max(told.values()) < task.vocabulary and not set(told) & set(told.values())


def palindromes_are_read_backwards():
    task = task_named("palindrome", 32)
    for tokens, targets in zip(*task.draw(torch.Generator().manual_seed(3), 20)):
        told = tokens[:16].tolist()
        assert targets.tolist() == told[::-1] and tokens[16:].tolist() == [0] + told[:0:-1]


def own_gradients_are_those_of_autograd():
    """The convolution against PyTorch's, and the slopes of what has a backward pass of its own."""
    generator = torch.Generator().manual_seed(4)
    for T in (1, 2, 3, 9):
        x, weight = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((2, T, 5), (5, model.WIDTH)))
        padded = F.pad(x.transpose(1, 2), (model.WIDTH - 1, 0))
        due = F.silu(F.conv1d(padded, weight[:, None], groups=5)).transpose(1, 2)
        y = model.ConvolvedSwish.apply(x, weight)
        assert (y - due).abs().max() < 1e-12
        d = torch.randn(y.shape, generator=generator, dtype=torch.float64)
        leaves = [leaf.clone().requires_grad_() for leaf in (x, weight)]
        slopes = torch.autograd.grad(model.ConvolvedSwish.apply(*leaves), leaves, d)
        padded = F.pad(leaves[0].transpose(1, 2), (model.WIDTH - 1, 0))
        for slope, exact in zip(slopes, torch.autograd.grad(F.silu(F.conv1d(padded, leaves[1][:, None], groups=5)).transpose(1, 2), leaves, d)):
            assert (slope - exact).abs().max() < 1e-5  # the weight's slopes are summed in fp32
    table, tokens = torch.randn(7, 3, generator=generator, requires_grad=True), torch.tensor([[1, 1, 6], [0, 3, 1]])
    d = torch.randn(2, 3, 3, generator=generator)
    (slope,) = torch.autograd.grad(model.Looked.apply(table, tokens), table, d)
    assert torch.equal(slope, torch.autograd.grad(table[tokens], table, d)[0])


def nothing_is_read_ahead():
    """A model that saw the next token would solve palindromes and stacks without remembering anything."""
    T, at = 24, 11
    tokens = torch.randint(9, (3, T), generator=torch.Generator().manual_seed(6))
    changed = tokens.clone()
    changed[:, at + 1:] = (changed[:, at + 1:] + 1) % 9
    small = model.Model(9, keeps=(1, 1000), K=8, seed=2)
    for fault in (None, *FAULTS):
        recurrence = recurrence_with(None, "accurate", fault)
        with torch.no_grad():
            before, after = (small(t, slice(0, T), recurrence, torch.float32) for t in (tokens, changed))
        assert (before[:, :at + 1] - after[:, :at + 1]).abs().max() < 1e-5, fault
        assert (before[:, at + 1:] - after[:, at + 1:]).abs().max() > 1e-2, fault


def gates_begin_as_they_are_told():
    """alpha^tokens is 1/e for a number of tokens between those that were asked for, and some are near either."""
    layer = model.Model(9, keeps=(4, 4096), K=128, seed=2).layers[0]
    tokens = 1 / (layer.A_log.exp()[:, None] * F.softplus(layer.dt_bias.double()))
    assert 4 * 0.999 < tokens.min() < 8 and 2048 < tokens.max() < 4096 * 1.001, (tokens.min(), tokens.max())
    assert abs(tokens.log2().mean() - 7) < 0.5


def sequences_grow_while_most_is_right():
    """From the first length to the run's by doubling, with one alphabet; only the run's own length can be called solved, and its rate falls."""
    sys.argv = ["synthetic_tasks.py", "--device", "cpu", "--tokens", "256", "--looked-at", "1024", "--width", "8", "--first-tokens", "16", "--mostly",
                "1e-9", "--solved", "1e-9", "--halves", "10", "--steps", "1000", "mqar:64"]
    options, (run,) = synthetic_tasks.parsed()
    assert run.lengths == [64]  # what is no multiple of 128 is not halved
    for text, lengths in (("stack:1024", [256, 512, 1024]), ("stack:320", [320]), ("stack:128", [128]), ("stack:640", [320, 640])):
        options.first_tokens = 256
        assert synthetic_tasks.Run(text, options).lengths == lengths, text
    run.lengths, rows = [16, 32, 64], []
    run.write = rows.append
    run.start()
    symbols = run.task.vocabulary
    seen, rates = [], []
    while not run.seen(0.0):
        seen.append((run.now, run.sequences, run.tokens.shape[1]))
        assert run.task.vocabulary == symbols == task_named("mqar", 64).vocabulary
        run.turn()
        run.pending = run.pending and (*run.pending[:2], torch.tensor(1.0))  # a look that found everything right
        rates.append(run.optimizer.param_groups[0]["lr"])
    assert [*dict.fromkeys(seen)] == [(16, 16, 16), (32, 8, 32), (64, 4, 64)], seen
    assert [row["tokens"] for row in rows] == [16, 32, 64] and run.solved_at == rows[-1]["step"] == 300, rows
    assert rates[-1] == options.rate  # it is from most being right at the full length on that it falls
    run.step += 20
    run.set_rate()
    assert abs(run.optimizer.param_groups[0]["lr"] / options.rate - 0.25) < 1e-6


def a_run_that_ends_early_is_looked_at_in_its_own_length():
    """What was right in shorter sequences is no result of the run, whichever step it ends at."""
    sys.argv = ["synthetic_tasks.py", "--device", "cpu", "--tokens", "64", "--looked-at", "512", "--width", "8", "mqar:32"]
    options, (run,) = synthetic_tasks.parsed()
    run.lengths, rows = [16, 32], []
    run.write = rows.append
    run.start()
    run.step, run.right = 300, 0.875  # of the look at 16 tokens
    summary = run.end("time is up")
    assert rows[0]["tokens"] == 32 and summary["right"] == rows[0]["right"] < 0.875 and summary["sequences"] == 2, rows
    sys.argv += ["--keeps", "2", "1"]
    try:
        synthetic_tasks.parsed()
        raise AssertionError("the least above the most was taken")
    except SystemExit as end:
        assert end.code == 2


def arguments_reach_their_places(path):
    """The kernels of the library, whose arithmetic is not PyTorch's, agree with the recurrence."""
    library = Library(path)
    for kernel in ("fast", "accurate"):
        assert self_check(library, kernel, "cpu", T=70, K=16)
    inputs, (d_o, _) = inputs_and_cotangents("cpu", B=2, T=128, K=16)
    del inputs["initial_state"]
    for fault in (None, *FAULTS):
        found, due = [], []
        for which, to in ((library, found), (None, due)):
            leaves = [x.clone().requires_grad_() for x in inputs.values()]
            o = recurrence_with(which, "accurate", fault)(*leaves)
            to += [o, *torch.autograd.grad(o, leaves, d_o)]
        for x, y in zip(found, due):
            assert (x - y).norm() < 0.02 * y.norm(), fault
    try:
        self_check(library, "recurrence", "cpu")
        raise AssertionError("a kernel that is not there was called")
    except RuntimeError as error:
        assert "kernel" in str(error), error


def two_layers_learn_and_a_fault_forgets():
    sys.argv = ["synthetic_tasks.py", "--device", "cpu", "--tokens", "512", "--looked-at", "1024", "--width", "16", "--rate", "4e-3", "--solved",
                "0.97", "--steps", "1000", "mqar:16"]
    options, runs = synthetic_tasks.parsed()
    (summary,) = synthetic_tasks.go(runs, options)
    assert summary["solved_at"] is not None and summary["right"] >= 0.97, summary
    forgets = summary["right_with_fault"]
    assert max(forgets["carry-dropped"], forgets["state-transposed"]) < 0.5, summary  # where one of 8 values would be right by chance


library_path = sys.argv[1] if len(sys.argv) == 2 else None
for test in (stacks_are_followed, recall_asks_what_was_told, palindromes_are_read_backwards, own_gradients_are_those_of_autograd,
             nothing_is_read_ahead, gates_begin_as_they_are_told, sequences_grow_while_most_is_right,
             a_run_that_ends_early_is_looked_at_in_its_own_length, two_layers_learn_and_a_fault_forgets):
    test()
    print(test.__name__, "passed", flush=True)
if library_path:
    arguments_reach_their_places(library_path)
    print(arguments_reach_their_places.__name__, "passed")
