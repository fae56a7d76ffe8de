"""Feed-forwards: what happens to each token alone."""

# b batch, n tokens, d width, f hidden width

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.linear import Linear
from zoo.nn.matmul import FUSED, PLAIN
from zoo.nn.schema import GatedMLPConfig, MLPConfig
from zoo.registry import build

__all__ = ["ACTIVATIONS", "MLP", "GatedMLP"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = PLAIN | {
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),  # OpenAI's CLIP
    "relu_squared": lambda x: F.relu(x).square(),
    "linear": lambda x: x,
}


class MLP(nn.Module):
    """down(activation(up(x)))."""

    def __init__(self, config: MLPConfig, width: int, std: float = 0.02, depth: int = 0) -> None:
        super().__init__()
        hidden = config.inner(width)
        self.up = Linear(width, hidden, config.bias, std)
        self.down = Linear(hidden, width, config.bias, std / math.sqrt(2 * depth) if depth else std)
        self.fused = config.activation if config.activation in FUSED else "linear"
        self.activation = None if config.activation in FUSED else ACTIVATIONS[config.activation]
        self.dropout = config.dropout
        norm = config.inner_norm
        self.inner_norm = None if norm is None else build(norm, width=hidden)
        self.has_inner_norm = norm is not None

    def forward(self, x: Tensor) -> Tensor:  # b n d -> b n d
        # a dict: at one token a step, attributes of modules are dear
        part: dict[str, Any] = self._modules
        kind, down = x.dtype, part["down"]
        form = down.form
        if form is not None and form.begins_in is not None and not self.has_inner_norm:
            x = x.to(form.begins_in)  # so that its products answer in it
        x = part["up"](x, self.fused)  # b n f
        if self.activation is not None:
            x = self.activation(x)
        if self.has_inner_norm:
            x = part["inner_norm"](x)
        if self.dropout and self.training:
            x = F.dropout(x, self.dropout)
        x = down(x)
        return x if x.dtype == kind else x.to(kind)


class GatedMLP(nn.Module):
    """down(activation(gate(x)) * up(x)); gate and up are one matrix, rows gate | up."""

    def __init__(
        self, config: GatedMLPConfig, width: int, std: float = 0.02, depth: int = 0
    ) -> None:
        super().__init__()
        hidden = config.inner(width)
        self.gate_up = Linear(width, 2 * hidden, config.bias, std)
        self.down = Linear(hidden, width, config.bias, std / math.sqrt(2 * depth) if depth else std)
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = config.dropout
        norm = config.inner_norm
        self.inner_norm = None if norm is None else build(norm, width=hidden)
        self.has_inner_norm = norm is not None

    def forward(self, x: Tensor) -> Tensor:  # b n d -> b n d
        part: dict[str, Any] = self._modules
        gate, up = part["gate_up"](x).chunk(2, dim=-1)  # b n f each
        x = self.activation(gate)
        # in place, half as much memory is gone through
        x = x * up if torch.is_grad_enabled() else x.mul_(up)
        if self.has_inner_norm:
            x = part["inner_norm"](x)
        if self.dropout and self.training:
            x = F.dropout(x, self.dropout)
        return part["down"](x)
