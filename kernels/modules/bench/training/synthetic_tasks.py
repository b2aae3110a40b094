"""Two KDA layers of two heads of 128 learn palindromes, associative recall (MQAR) and 64 stacks with the CUDA kernels of this project,
forward and backward, and forget where the recurrence is given a fault. Needs PyTorch; without a GPU a run is slow, token by token.

    python synthetic_tasks.py --library build/kernels/cuda/libkdacheck_cuda.so --self-check
    python synthetic_tasks.py --library build/kernels/cuda/libkdacheck_cuda.so --smoke
    python synthetic_tasks.py --library build/kernels/cuda/libkdacheck_cuda.so --out FOLDER --seconds 450 [RUN...]

A RUN is TASK:TOKENS[:FAULT][@RATE], such as mqar:512 or stack:256:carry-dropped; by default every task at 256 to 2048 tokens, and each at 256 with its
recurrence faulty. A run begins with sequences of --first-tokens, which are twice as long whenever most is right, and its steps count from there. All go
on side by side on one GPU, each on a stream of its own, one CUDA graph a step, until they are solved, or --steps or --seconds are up. FOLDER gets a file
of JSON lines per run, written as it goes, summary.json and summary.md. Exit status 0 if every run without a fault was solved, 1 if not (or the
self-check fails), 2 for wrong arguments, 3 where PyTorch or the GPU is missing or gives up.
"""
import argparse
import json
import os
import re
import sys
import time
from pathlib import Path

os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")  # before CUDA starts: runs wait for one another behind fewer

try:
    import torch
except ImportError:
    print("PyTorch is needed, and this Python does not have it", file=sys.stderr)
    sys.exit(3)
import torch.nn.functional as F
from faults import FAULTS, recurrence_with
from kda_cuda import KERNELS, Library
from model import Model
from self_check import self_check
from tasks import task_named

TASKS = ("palindrome", "mqar", "stack")
LENGTHS = (256, 512, 1024, 2048)
STEPS_OF_A_TURN, STEPS_BETWEEN_LOOKS = 10, 100


class Run:
    """One model that learns one task."""

    def __init__(self, text, options):
        self.text = text
        parts = re.fullmatch(rf"({'|'.join(TASKS)}):(\d+)(?::({'|'.join(FAULTS)}))?(?:@([\d.e-]+))?", text)
        if parts:
            self.task_name, self.T, self.fault = parts[1], int(parts[2]), parts[3]
            self.rate = float(parts[4]) if parts[4] else options.rate
        if not parts or self.T < 8 or self.T % (64 if self.T > 64 else 8) or not self.rate > 0:
            raise ValueError(f"{text}: TASK:TOKENS[:FAULT][@RATE] is due: a task of {', '.join(TASKS)}; 8, 16, ... 64 or a multiple of 64 tokens;"
                             f" a fault of {', '.join(FAULTS)}")
        self.options, self.device, self.dtype = options, torch.device(options.device), options.dtype
        self.lengths = [self.T]
        while self.lengths[0] >= 2 * options.first_tokens and self.lengths[0] % 128 == 0:
            self.lengths.insert(0, self.lengths[0] // 2)
        self.step = self.right = 0
        self.mostly_right_at = self.solved_at = self.file = self.pending = self.graph = None
        self.stream = torch.cuda.Stream() if self.device.type == "cuda" else None

    def on_stream(self):
        return torch.cuda.stream(self.stream)  # of None: nothing

    def start(self):
        """Makes the model, and what sequences of the first length need."""
        self.generator = torch.Generator(self.device).manual_seed(7)
        keeps = [tokens * self.T for tokens in self.options.keeps]
        self.model = Model(task_named(self.task_name, self.T).vocabulary, keeps, K=self.options.width, seed=self.options.seed).to(self.device)
        self.recurrence = recurrence_with(self.options.library, self.options.kernel, self.fault)
        in_graph = {"lr": torch.tensor(0.0, device=self.device), "fused": True, "capturable": True} if self.stream is not None else {}
        self.optimizer = torch.optim.Adam(self.model.parameters(), betas=(0.9, 0.98), **in_graph)
        self.go_to(self.lengths[0])

    def go_to(self, T):
        """Draws what is held out of T tokens, and makes the graph of a step."""
        self.now, self.sequences, self.graph = T, max(1, self.options.tokens // T), None
        self.task = task_named(self.task_name, T, self.T)
        on_gpu = self.stream is not None
        if on_gpu:
            torch.cuda.synchronize()
        self.looked_at = self.task.draw(torch.Generator(self.device).manual_seed(99), max(8, self.options.looked_at // T))
        tokens, targets = self.task.draw(self.generator, self.sequences)
        self.tokens, self.targets = tokens.clone(), targets.clone()
        self.loss = torch.zeros((), device=self.device)
        if not on_gpu:
            return
        torch.cuda.synchronize()
        with self.on_stream():
            self.set_rate()
            for _ in range(3):  # sizes of everything, and the kernels, are there before the graph is recorded
                self.learn()
        torch.cuda.synchronize()
        self.step += 3
        self.optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            self.learn()

    def set_rate(self):
        """Rises over the first steps, stays until most is right at the full length, and falls by halves from there, down to a sixteenth."""
        rate = self.rate * min(1.0, (self.step + STEPS_OF_A_TURN) / self.options.warm_up)
        if self.mostly_right_at is not None:
            rate *= max(1 / 16, 0.5 ** ((self.step - self.mostly_right_at) / self.options.halves))
        if self.stream is not None:
            self.optimizer.param_groups[0]["lr"].fill_(rate)
        else:
            self.optimizer.param_groups[0]["lr"] = rate

    def learn(self):
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.model(self.tokens, self.task.asked, self.recurrence, self.dtype)
        loss = F.cross_entropy(logits.flatten(0, 1), self.targets.flatten(), ignore_index=-1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.loss.copy_(loss.detach())

    def turn(self):
        """A few steps, with fresh sequences each."""
        with self.on_stream():
            self.set_rate()
            tokens, targets = self.task.draw(self.generator, STEPS_OF_A_TURN * self.sequences)
            for i in range(STEPS_OF_A_TURN):
                part = slice(i * self.sequences, (i + 1) * self.sequences)
                self.tokens.copy_(tokens[part])
                self.targets.copy_(targets[part])
                self.graph.replay() if self.graph else self.learn()
            self.step += STEPS_OF_A_TURN
            if self.step % STEPS_BETWEEN_LOOKS < STEPS_OF_A_TURN:
                self.pending = (self.step, self.loss.clone(), self.look(self.recurrence))

    @torch.no_grad()
    def look(self, recurrence):
        """Share of the held-out targets that the largest logit names, on the device."""
        right = asked = 0
        for tokens, targets in zip(*(x.split(self.sequences) for x in self.looked_at)):
            named = self.model(tokens, self.task.asked, recurrence, self.dtype).argmax(-1)
            right, asked = right + ((named == targets) & (targets >= 0)).sum(), asked + (targets >= 0).sum()
        return right / asked

    def seen(self, seconds):
        """Writes what the last look saw, if there is one; True once the task is solved or the steps are up."""
        if self.pending is None:
            return False
        with self.on_stream():
            step, loss, right = self.pending[0], self.pending[1].item(), self.pending[2].item()
        self.pending, self.right = None, right
        self.write({"step": step, "seconds": round(seconds, 2), "tokens": self.now, "loss": loss, "right": right})
        if self.now < self.T:
            if right >= self.options.mostly:
                self.go_to(self.lengths[self.lengths.index(self.now) + 1])
        else:
            if right >= self.options.mostly and self.mostly_right_at is None:
                self.mostly_right_at = step
            if right >= self.options.solved:
                self.solved_at = step
        return self.solved_at is not None or step >= self.options.steps

    def write(self, row):
        if self.file:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()

    def end(self, why):
        """What the model is worth with each fault in its recurrence; ends the run's file."""
        shorter = self.now < self.T  # what it is worth at the length that was asked for has not been looked at
        if shorter:
            self.go_to(self.T)
        if shorter or self.step % STEPS_BETWEEN_LOOKS >= STEPS_OF_A_TURN:  # steps since the last look
            with self.on_stream():
                self.pending = (self.step, self.loss.clone(), self.look(self.recurrence))
        if self.pending is not None:
            self.seen(self.options.passed())
        summary = {"run": self.text, "task": self.task_name, "tokens": self.T, "fault": self.fault, "rate": self.rate, "sequences": self.sequences,
                   "steps": self.step, "solved_at": self.solved_at, "right": self.right, "ended": why}
        if self.fault is None:
            with self.on_stream():
                summary["right_with_fault"] = {fault: self.look(recurrence_with(self.options.library, self.options.kernel, fault)).item()
                                               for fault in FAULTS}
        summary["seconds"] = round(self.options.passed(), 2)
        self.write(summary)
        print(f"{self.text:32} {self.step:6} steps  {100 * self.right:5.1f} % right  {why}"
              + "".join(f"  {fault} {100 * right:.1f} %" for fault, right in summary.get("right_with_fault", {}).items()), flush=True)
        self.graph = None
        return summary


def table(summaries):
    """Markdown: a row per run that ended."""
    percent = lambda share: f"{100 * share:.1f} %"
    rows = ["| run | rate | sequences a step | steps | seconds | right | " + " | ".join("with " + fault for fault in FAULTS) + " |",
            "|---|--:|--:|--:|--:|--:|" + "--:|" * len(FAULTS)]
    for run in sorted(summaries, key=lambda run: (run["fault"] or "", run["task"], run["tokens"], run["rate"])):
        name = f"{run['task']}, {run['tokens']} tokens" + (f", trained with {run['fault']}" if run["fault"] else "")
        forgets = [percent(run["right_with_fault"][fault]) if run["fault"] is None else "" for fault in FAULTS]
        rows.append(f"| {name} | {run['rate']:g} | {run['sequences']} | {run['steps']} | {run['seconds']:.0f} | {percent(run['right'])} | " + " | ".join(forgets) + " |")
    return "\n".join(rows) + "\n"


def go(runs, options):
    """All runs side by side; their summaries."""
    summaries, active = [], []
    for run in runs:
        run.start()
        if options.out:
            run.file = (options.out / (run.text.replace(":", ".") + ".jsonl")).open("w")
        active.append(run)

    def ended(run, why):
        active.remove(run)
        summaries.append(run.end(why))
        if options.out:
            (options.out / "summary.json").write_text(json.dumps({**options.named, "runs": summaries}, indent=1) + "\n")
            (options.out / "summary.md").write_text(table(summaries))

    while active and options.passed() < options.seconds:
        for run in list(active):
            if run.seen(options.passed()) or run.step >= options.steps:
                ended(run, "solved" if run.solved_at is not None else "steps are up")
            else:
                run.turn()
    for run in list(active):
        ended(run, "time is up")
    return summaries


def smoke(runs, options):
    """Milliseconds of a step of each run alone, and what 50 steps do to its loss."""
    for run in runs:
        began, run.lengths = time.monotonic(), [run.T]
        run.start()
        run.turn()
        first = run.loss.item()
        if run.stream is not None:
            torch.cuda.synchronize()
        prepared = time.monotonic()
        for _ in range(4):
            run.turn()
        last = run.loss.item()
        if run.stream is not None:
            torch.cuda.synchronize()
        step = (time.monotonic() - prepared) / (4 * STEPS_OF_A_TURN)
        memory = f"  {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if run.stream is not None else ""
        print(f"{run.text:32} {run.sequences:4} sequences  {1000 * step:8.2f} ms a step  loss {first:.3f} to {last:.3f}"
              f"  {prepared - began:.1f} s to prepare{memory}", flush=True)
        run.graph = None


def positive(kind):
    """An argument of that kind above 0."""

    def read(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError(text)
        return value

    read.__name__ = f"positive {kind.__name__}"  # what argparse calls it
    return read


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--library", help="libkdacheck_cuda.so; without it: token by token in PyTorch's own operations")
    parser.add_argument("--kernel", choices=list(KERNELS), default="accurate")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--format", choices=("bf16", "fp32"), help="of activations; bf16 with a library, fp32 without")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=positive(float), default=600)
    parser.add_argument("--steps", type=positive(int), default=20000)
    parser.add_argument("--rate", type=positive(float), default=1e-3)
    parser.add_argument("--warm-up", type=positive(int), default=100, help="steps over which the rate rises")
    parser.add_argument("--halves", type=positive(int), default=2500, help="steps in which the rate falls to half once most is right")
    parser.add_argument("--mostly", type=positive(float), default=0.9, help="share right at which the rate begins to fall, and lengths to grow")
    parser.add_argument("--first-tokens", type=positive(int), default=256, help="length of the first sequences, doubled whenever most is right")
    parser.add_argument("--keeps", type=positive(float), nargs=2, default=(1.0, 64.0), metavar=("LEAST", "MOST"),
                        help="lengths of a sequence over which a channel falls to 1/e at first")
    parser.add_argument("--tokens", type=positive(int), default=16384, help="of a step, all sequences together")
    parser.add_argument("--looked-at", type=positive(int), default=65536, help="tokens that are held out")
    parser.add_argument("--solved", type=positive(float), default=0.99, help="share right at which a run ends")
    parser.add_argument("--width", type=positive(int), default=128, help="of a head")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--self-check", action="store_true", help="compare outputs and gradients with the recurrence in fp64, and end")
    parser.add_argument("--smoke", action="store_true", help="50 steps of each run, and end")
    options = parser.parse_args()
    options.named = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items() if key != "runs"}
    options.named["torch"] = torch.__version__
    options.named["gpu"] = torch.cuda.get_device_name() if options.device == "cuda" else None
    options.dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[options.format or ("bf16" if options.library else "fp32")]
    started = time.monotonic()
    options.passed = lambda: time.monotonic() - started
    try:
        if options.keeps[0] > options.keeps[1]:
            raise ValueError(f"--keeps {options.keeps[0]:g} {options.keeps[1]:g}: the least comes first")
        if options.self_check and not options.library:
            raise ValueError("--self-check needs a --library to check")
        options.library = Library(options.library) if options.library else None
        if options.self_check:
            return options, []
        names = options.runs or [f"{task}:{T}" for T in LENGTHS for task in TASKS] + [f"{task}:256:carry-dropped" for task in TASKS]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{twice[0]} is asked for twice")
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
        return options, [Run(name, options) for name in names]
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def main():
    options, runs = parsed()
    try:
        return status_of(options, runs)
    except RuntimeError as error:  # of the library or of PyTorch: no GPU, no driver, no memory
        print(str(error).splitlines()[0], file=sys.stderr)
        return 3


def status_of(options, runs):
    if options.self_check:
        return 0 if self_check(options.library, options.kernel, options.device) else 1
    if options.smoke:
        smoke(runs, options)
        return 0
    summaries = go(runs, options)
    return 0 if all(run["solved_at"] is not None for run in summaries if run["fault"] is None) else 1


if __name__ == "__main__":
    sys.exit(main())
