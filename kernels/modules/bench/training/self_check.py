"""Outputs and gradients of the kernels behind kda_cuda.Kda against the recurrence in fp64, so that an argument in a wrong place is seen before
a model is trained with it."""
import torch
from kda_cuda import kda, kda_token_by_token

# Of the relative distance in L2. Rounding outputs to bf16 costs 2e-3, operands of bf16 some 1e-2 in dg; an argument in a wrong place about 1.
MOST = 0.05


def inputs_and_cotangents(device, B=2, T=100, H=2, K=128):
    """Rounded to the formats that the kernels are given."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape, mean=0.0, deviation=1.0, dtype=torch.bfloat16):
        return (mean + deviation * torch.randn(*shape, generator=generator)).to(device, dtype)

    fp32 = {"dtype": torch.float32}
    inputs = {"qkv": normal(B, T, 3, H, K), "g": normal(B, T, H, K), "beta": normal(B, T, H), "A_log": normal(H, mean=0.5, deviation=0.5, **fp32),
              "dt_bias": normal(H, K, mean=-3.0, **fp32), "initial_state": normal(B, H, K, K, deviation=0.3, **fp32)}
    return inputs, (normal(B, T, H, K), normal(B, H, K, K, deviation=0.1, **fp32))


def results(run, inputs, cotangents):
    inputs = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    o, state = run(*inputs.values())
    d = torch.autograd.grad((o, state), list(inputs.values()), cotangents)
    found = {"o": o, "final_state": state, **{"d " + name: x for name, x in zip(inputs, d)}}
    for i, name in enumerate("qkv"):
        found["d " + name] = found["d qkv"][:, :, i]
    del found["d qkv"]
    return {name: x.detach().double() for name, x in found.items()}


def self_check(library, kernel, device, **sizes):
    """Prints a line per tensor; True if all are near. `sizes`: B, T, H, K other than inputs_and_cotangents has them."""
    if library is None:
        print("nothing to check: no library is given")
        return False
    inputs, cotangents = inputs_and_cotangents(device, **sizes)
    found = results(lambda *x: kda(library, kernel, *x, with_state=True), inputs, cotangents)
    due = results(kda_token_by_token, {name: x.double() for name, x in inputs.items()}, tuple(x.double() for x in cotangents))
    good = True
    for name in due:
        distance = ((found[name] - due[name]).norm() / due[name].norm()).item()
        near = distance <= MOST  # false for NaN
        good = good and near
        print(f"{name:16} {distance:.2e} from fp64, relative{'' if near else '  TOO FAR'}")
    print("self-check passed" if good else "self-check FAILED")
    return good
