"""Serves Python functions to the gate by the line protocol: python -m kdacheck.worker module:function [module:function ...]"""
import importlib
import inspect
import json
import os
import sys
import traceback

from . import Declaration, tensors
from .settings import FloatingPointMode, Settings


class Served:
    """One function under its declaration."""

    def __init__(self, path, mode):
        module, _, function = path.partition(":")
        if not module or not function:
            raise Unusable(f"'{path}' is not module:function")
        self.function = imported(module, function)
        declared = getattr(self.function, "kdacheck", None) or Declaration()
        self.declaration = Declaration(**declared) if isinstance(declared, dict) else declared
        self.name = self.declaration.name or path.replace(":", ".")
        from .frameworks import framework  # here: what it imports may be missing

        self.framework = framework(self.declaration.framework, self.declaration.device)
        backward = self.declaration.backward
        if not (backward is None or callable(backward) or backward == "autograd"):
            raise Unusable(f"{self.name}: backward={backward!r} is none of None, 'autograd' and a function")
        if backward == "autograd" and self.framework.name not in ("torch", "jax"):
            raise Unusable(f"{self.name}: autograd needs torch or jax, not {self.framework.name}")
        parameters = inspect.signature(self.function).parameters.values()
        self.takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self.known = {p.name for p in parameters}
        self.settings = Settings(mode)

    def described(self):
        return {
            "name": self.name,
            "contract": self.declaration.contract,
            "summary": self.declaration.summary or (self.function.__doc__ or "").strip().split("\n")[0],
            "backward": self.declaration.backward is not None,
        }

    def arguments(self, raw, metadata, final_state):
        """Keywords of the call, and the tensors among them."""
        held = {n: self.framework.tensor(n, x) for n, x in raw.items() if n not in ("do", "dht")}
        words = {n: held.get(n) for n in ("q", "k", "v", "g", "beta", "a", "b", "A_log", "dt_bias", "initial_state", "cu_seqlens")}
        gate_inside = metadata["gate"] in ("softplus", "bounded", "sigmoid")
        words |= {
            "scale": float(metadata["scale"]),
            "output_final_state": final_state,
            "use_qk_l2norm_in_kernel": metadata["l2norm"] == "yes",
            "use_gate_in_kernel": gate_inside,
            "gate": metadata["gate"],
            "lower_bound": float(metadata["lower_bound"]) if metadata["gate"] == "bounded" else None,
            "beta_form": metadata["beta"],
        }
        silent = {"g", "beta", "a", "b", "A_log", "dt_bias", "cu_seqlens", "initial_state", "lower_bound"}
        plain = {"use_qk_l2norm_in_kernel": False, "use_gate_in_kernel": False, "beta_form": "value", "gate": metadata["gate"] if not gate_inside else None}
        for name in list(words):
            if self.takes_all or name in self.known:
                continue
            says_nothing = (name in silent and words[name] is None) or (name in plain and words[name] == plain[name])
            if not says_nothing and name not in ("output_final_state",):
                raise Refusal(f"{self.name} takes no argument '{name}'")
            del words[name]
        return words, held

    def forward(self, raw, metadata, final_state):
        words, held = self.arguments(raw, metadata, final_state)
        before = self.bytes_of(held)
        result = self.function(**words)
        o, state = result if isinstance(result, (tuple, list)) else (result, None)
        if final_state and state is None:
            raise ValueError(f"{self.name} returned no final state")
        out = {"o": o} | ({"final_state": state} if final_state else {})
        return out, self.trespass(before, held, out)

    def bytes_of(self, tensors):
        return {n: self.framework.raw(x).data for n, x in tensors.items() if n != "cu_seqlens"}

    def trespass(self, before, held, out):
        """What a call did to tensors that are not its own, as a sentence, or None."""
        for name, data in self.bytes_of(held).items():
            if data != before[name]:
                return f"changed input {name}"
        for name, x in out.items():
            if shared := self.framework.overlap(x, held):
                return f"{name} shares memory with input {shared}"
        return None

    def backward(self, raw, metadata, wanted):
        words, held = self.arguments(raw, metadata, True)
        cotangents = {n: self.framework.tensor(n, raw[n]) for n in ("do", "dht") if n in raw}
        lent = held | cotangents
        before = self.bytes_of(lent)
        if callable(self.declaration.backward):
            gradients = self.declaration.backward(**words, **cotangents)
            out = {n: gradients[n] for n in wanted}
            return out, self.trespass(before, lent, out)
        # autograd may rightly hand a cotangent on as a gradient
        return self._autograd(words, held, cotangents, wanted), self.trespass(before, lent, {})

    def _autograd(self, words, held, cotangents, wanted):
        names = [n[1:] for n in wanted]
        if self.framework.name == "jax":
            jax = self.framework.jax
            call = lambda primals: self.function(**(words | primals))
            (o, state), pull = jax.vjp(call, {n: words[n] for n in names})
            zero = jax.numpy.zeros_like
            return {"d" + n: g for n, g in pull((cotangents.get("do", zero(o)).astype(o.dtype), cotangents.get("dht", zero(state)).astype(state.dtype)))[0].items()}
        torch = self.framework.torch
        primals = {n: words[n].clone().requires_grad_(True) for n in names}
        with torch.enable_grad():
            o, state = self.function(**(words | primals))
        outputs = [(x, cotangents[n]) for n, x in (("do", o), ("dht", state)) if n in cotangents and x.requires_grad]
        if not outputs:
            return {"d" + n: torch.zeros_like(primals[n]) for n in names}
        found = torch.autograd.grad([x for x, _ in outputs], list(primals.values()), [g.to(x.dtype) for x, g in outputs], allow_unused=True)
        return {"d" + n: torch.zeros_like(primals[n]) if g is None else g for n, g in zip(names, found)}


class Refusal(Exception):
    """The kernel does not take such a call."""


class Unusable(Exception):
    """What was named cannot be served, in a sentence."""


def imported(module, function):
    try:
        there = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module + ".").startswith(error.name + "."):
            raise Unusable(f"there is no module '{error.name}' in {os.getcwd()} or on PYTHONPATH")
        raise
    if not callable(getattr(there, function, None)):
        raise Unusable(f"module '{module}' has no function '{function}'")
    return getattr(there, function)


def introduction_without(error):
    """The answer to hello of a worker that cannot serve."""
    if isinstance(error, Unusable):
        return {"error": str(error)}
    if isinstance(error, ModuleNotFoundError):
        return {"error": f"{sys.executable} (Python {sys.version.split()[0]}) has no module '{error.name}'", "missing": error.name}
    return {"error": f"it cannot be imported: {type(error).__name__}: {error}"}


def answer(served, request):
    if request["op"] == "hello":
        return {"protocol": 1, "kernels": [one.described() for one in served.values()]}
    one = served[request["kernel"]]
    raw, metadata = tensors.read(request["problem"])
    one.settings.restore()
    try:
        if request["op"] == "forward":
            out, trespass = one.forward(raw, metadata, request["final_state"])
        else:
            out, trespass = one.backward(raw, metadata, request["gradients"])
    except (Refusal, NotImplementedError) as refusal:
        return {"refused": str(refusal) or "not implemented"}
    except one.declaration.refuses as refusal:
        if one.framework.broken(refusal):
            raise
        return {"refused": f"{type(refusal).__name__}: {refusal}"[:500]}
    tensors.write(request["result"], {n: one.framework.raw(x) for n, x in out.items()})
    return {"done": True} | ({"trespass": trespass} if trespass else {})


def main(paths):
    # What a kernel prints must not get between the answers.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    served, trouble, mode = {}, None, FloatingPointMode()
    try:
        for path in paths:
            one = Served(path, mode)
            served[one.name] = one
    except BaseException as error:  # a user's module may raise anything, SystemExit too
        traceback.print_exc(file=sys.stderr)
        trouble = introduction_without(error)
    for line in sys.stdin:
        try:
            reply = trouble if trouble else answer(served, json.loads(line))
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=channel, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
