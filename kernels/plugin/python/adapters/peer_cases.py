"""What `kdacheck_cuda_check --write-cases FILE` wrote: inputs that its kernels are timed and checked on, and what double gives for them."""
import json
import math

import torch
from safetensors import safe_open
from safetensors.torch import load_file

K = V = 128
LOWER_BOUND = -5.0


def relative(difference, norm):
    error = math.sqrt(difference / max(norm, 1e-300))
    if not math.isfinite(error):
        raise ArithmeticError("its answer is not finite")
    return error


def squares(x, exact):
    """Of the difference and of the exact tensor, summed."""
    exact = exact.flatten()
    return ((x.flatten().to(exact) - exact) ** 2).sum().item(), (exact**2).sum().item()


class PeerCases:
    def __init__(self, file, device):
        self.tensors = load_file(file, device=device)
        self.device = device
        with safe_open(file, framework="pt") as opened:
            words = opened.metadata()
        self.timed = json.loads(words["timed"])
        self.regimes = json.loads(words["regimes"])

    def pool(self, kind, name, shape, turn=0):
        """A tensor as the timed problems have it: a pool repeated. `turn` takes the pool from another place."""
        pool = self.tensors[f"pool/{'dplr' if kind == 'dplr' else 'kda'}/{name}"]
        count = math.prod(shape)
        if turn > 0:
            pool = pool.roll(7919 * turn)
        return pool.repeat(-(-count // pool.numel()))[:count].clone().view(shape)

    def timed_inputs(self, case, turn=0):
        """Tensors of a timed case by name, bf16 but for parameters and states."""
        B, T, H, kind = case["B"], case["T"], case["H"], case["kind"]
        shapes = {"q": (B, T, H, K), "k": (B, T, H, K), "v": (B, T, H, V), "g": (B, T, H, K)}
        shapes |= {"a": (B, T, H, K), "b": (B, T, H, K)} if kind == "dplr" else {"beta": (B, T, H)}
        if kind == "decode":
            shapes["initial_state"] = (B, H, K, V)
        x = {name: self.pool(kind, name, shape, turn) for name, shape in shapes.items()}
        # Parameters are not tiled: their first numbers.
        return x | {"A_log": self.pool(kind, "A_log", (H,)), "dt_bias": self.pool(kind, "dt_bias", (H * K,))}

    def timed_errors(self, case, o, state):
        """Relative L2 errors of o and the final state over the heads that double has been through."""
        sums = [0.0] * 4
        for i, (n, head) in enumerate(case["heads"]):
            place = f"timed/{case['kind']} {case['case']}/{i}/"
            for at, part in ((0, squares(o[n, :, head], self.tensors[place + "o"])), (2, squares(state[n, head], self.tensors[place + "state"]))):
                sums[at] += part[0]
                sums[at + 1] += part[1]
        return relative(*sums[:2]), relative(*sums[2:])

    def regime_tensors(self, regime):
        place = f"regime/{regime['regime']}/"
        x = {name[len(place):]: value for name, value in self.tensors.items() if name.startswith(place)}
        # Stored with four extents.
        for name in ("beta", "A_log", "dt_bias"):
            if name in x:
                x[name] = x[name].squeeze(-1) if name == "beta" else x[name].flatten()
        return x

    @staticmethod
    def regime_errors(x, o, state):
        return relative(*squares(o, x["exact/o"])), relative(*squares(state, x["exact/state"]))

    @staticmethod
    def gradient_errors(regime, x, gradients):
        """By name of the primal. That of A_log, one number a head whose terms may cancel, is measured against them too."""
        errors = {}
        for name, gradient in gradients.items():
            difference, norm = squares(gradient, x["exact/d " + name])
            errors[name] = relative(difference, max(norm, regime["A_log_square"]) if name == "A_log" else norm)
        return errors
