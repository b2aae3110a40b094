"""Hands Python kernels of Kimi Delta Attention to the kdacheck gate.

    ./kdacheck verify --python mymodule:chunk_kda

calls the function by keyword, in the names of flash-linear-attention: q, k, v, g, beta, scale, initial_state,
output_final_state, cu_seqlens and, where the contract allows them, A_log, dt_bias, a, b, use_qk_l2norm_in_kernel,
use_gate_in_kernel, gate, lower_bound, beta_form. Those that a signature does not name are left out when they say nothing.
It returns o, or (o, final_state). A call that it does not take it turns down by NotImplementedError, or what `refuses` names.
"""
from dataclasses import dataclass
from typing import Any, Callable, Optional


@dataclass
class Declaration:
    """What a function promises. Attached to it as `kdacheck`, where a dictionary of these fields does as well."""

    contract: str = ""
    name: Optional[str] = None
    summary: str = ""
    framework: str = "auto"  # numpy | torch | jax; auto: torch if the function's module has imported it, else jax, else numpy
    device: str = "cpu"  # of torch
    backward: Any = None  # None: no gradients | "autograd" | a function that takes do, dht too and returns a dict of gradients
    refuses: Any = ()  # exceptions, besides NotImplementedError, by which it turns a call down; every other one counts as a crash


def kernel(contract: str = "", **options) -> Callable:
    """Decorator: declares a kernel's contract (`key=value ...`, README lists the keys) and how to call it.

    >>> @kdacheck.kernel("input=bf16 output=bf16 operands=bf16 chunk=64", framework="torch", backward="autograd")
    ... def chunk_kda(q, k, v, g, beta, scale, initial_state, output_final_state, cu_seqlens): ...
    """

    def declare(function):
        function.kdacheck = Declaration(contract=contract, **options)
        return function

    return declare
