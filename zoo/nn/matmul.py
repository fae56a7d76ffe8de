"""The one place where a linear layer's product is computed, and where the library behind it is
chosen.

PyTorch hands fp32 products to MKL, which on processors that are not Intel's runs at half of what
oneDNN reaches (2.1 to 3.3 times, measured on an AMD EPYC with AVX-512, forward and backward), and
its bf16 products copy the bias first and apply the activation afterwards. `linear` calls oneDNN,
which ships inside PyTorch, wherever that pays: on a CPU, for products large enough. Everywhere else
(CUDA, compiled graphs, autocast, other devices, fp32 on Intel's processors but for DEAR
activations) it is `torch.nn.functional.linear`.
"""

# m rows, i inputs, o outputs

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "FUSED",
    "PLAIN",
    "activate",
    "activated",
    "chosen",
    "has_mkl",
    "has_onednn",
    "has_tiles",
    "linear",
    "runs_as_called",
    "uses_onednn",
]

# Multiplications from which the 10 us of calling oneDNN are won back.
WORTH_IT = 1_000_000
# Activations that oneDNN applies while the product is in registers: name -> (attribute, algorithm).
FUSED = {
    "relu": ("relu", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "silu": ("swish", ""),
    "tanh": ("tanh", ""),
    "sigmoid": ("sigmoid", ""),
}
# Those that PyTorch takes five times gelu's time for: oneDNN's product pays wherever it is.
DEAR = frozenset({"gelu_tanh"})
# The same by PyTorch, afterwards.
PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "gelu": torch.ops.aten.gelu_.default,
    "gelu_tanh": lambda x: torch.ops.aten.gelu_.default(x, approximate="tanh"),
    "silu": lambda x: F.silu(x, inplace=True),
    "tanh": torch.tanh_,
    "sigmoid": torch.sigmoid_,
}


@cache
def _onednn(dtype: torch.dtype) -> Any:
    """Returns oneDNN's linear for a dtype, or None where PyTorch's own serves as well."""
    if not has_onednn(dtype):
        return None
    serves = dtype != torch.float32 or chosen() == "onednn" or not _intel()
    return torch.ops.mkldnn._linear_pointwise.default if serves else None


def has_onednn(dtype: torch.dtype) -> bool:
    """Returns whether oneDNN computes products of a dtype here, and may (ZOO_LINEAR=torch forbids
    it)."""
    operators = torch.ops.mkldnn
    if chosen() == "torch" or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(operators, "_linear_pointwise"):
        return False
    bf16 = dtype == torch.bfloat16 and operators._is_mkldnn_bf16_supported()
    return bf16 or dtype == torch.float32


def has_mkl() -> bool:
    """Returns whether MKL packs fp32 weights here, and may (ZOO_LINEAR=torch forbids it)."""
    packs = hasattr(torch.ops.mkl, "_mkl_reorder_linear_weight")
    return chosen() == "auto" and torch.backends.mkl.is_available() and packs and _intel()


@cache
def has_tiles() -> bool:
    """Returns whether this processor multiplies bf16 in tiles (Intel's AMX): three times as fast as
    int8 without them, and attention to bf16 keys in half the time of fp32's."""
    return bool(torch.backends.mkldnn.is_available() and torch.cpu._is_amx_tile_supported())


def runs_as_called() -> bool:
    """Returns whether an operator that is called here runs, and in the dtype that it is given: no
    graph is being traced, and there is no autocast."""
    return not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu")


def chosen() -> str:
    """Returns whose products ZOO_LINEAR asks for."""
    return os.environ.get("ZOO_LINEAR", "auto")  # torch | onednn | auto


@cache
def _intel() -> bool:
    """Returns whether MKL is at home here."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return "GenuineIntel" in file.read(4096)
    except OSError:
        return True


def uses_onednn(x: Tensor, weight: Tensor, activation: str = "linear") -> bool:
    """Returns whether `linear` of these takes the oneDNN path, where no gradient is wanted."""
    return (
        x.numel() * weight.shape[0] >= WORTH_IT  # first, for those whom the others would cost most
        and x.device.type == "cpu"
        and x.dtype == weight.dtype
        and runs_as_called()
        and (_onednn(x.dtype) is not None or (activation in DEAR and has_onednn(x.dtype)))
    )


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "linear"
) -> Tensor:
    """Returns activation(x W^T + b): (... i), (o i), (o) -> (... o).

    `activation` is one of FUSED or "linear"; it is fused into the product where that is possible.
    """
    grad = torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    )
    if not uses_onednn(x, weight, "linear" if grad else activation):
        out = F.linear(x, weight, bias)
        return activated(out, activation) if grad else activate(out, activation)
    if grad:
        return activated(_OneDNNLinear.apply(x, weight, bias), activation)
    attribute, algorithm = FUSED.get(activation, ("none", ""))
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, attribute, [], algorithm)


def activated(x: Tensor, activation: str) -> Tensor:
    """Returns the activation of FUSED, or "linear", of x."""
    if activation == "linear":
        return x
    return PLAIN[activation](x)


def activate(x: Tensor, activation: str) -> Tensor:
    """Applies an activation of FUSED, or "linear", to x, which nobody else reads and no gradient
    flows through, and returns it: what goes to other memory takes twice the time."""
    return x if activation == "linear" else IN_PLACE[activation](x)


class _OneDNNLinear(torch.autograd.Function):
    """The product with its two gradients, all three by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _onednn(x.dtype)(x, weight, bias, "none", [], "")

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        product = _onednn(x.dtype)
        rows = gradient.reshape(-1, gradient.shape[-1])  # m o
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = product(gradient, weight.t(), None, "none", [], "")
        if ctx.needs_input_grad[1]:
            inputs = x.reshape(-1, x.shape[-1])  # m i
            of_weight = product(rows.t(), inputs.t(), None, "none", [], "")
        if ctx.has_bias and ctx.needs_input_grad[2]:
            of_bias = rows.sum(0)
        return of_x, of_weight, of_bias
