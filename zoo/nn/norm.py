"""Norms over the last axis. Every one is called `norm(x)`, an adaptive one `norm(x, condition)`,
and keeps the shape and dtype of x."""

# b batch, n tokens, d width, e width of the condition

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.nn import native
from zoo.nn.linear import Linear
from zoo.nn.schema import (
    AdaptiveNormConfig,
    LayerNormConfig,
    NormConfig,
    ResponseNormConfig,
    RMSNormConfig,
    ScaleNormConfig,
)
from zoo.registry import build

__all__ = ["AdaptiveNorm", "LayerNorm", "RMSNorm", "ResponseNorm", "ScaleNorm", "build_norm"]


def build_norm(config: NormConfig, width: int, condition_width: int | None = None) -> nn.Module:
    """Returns a norm of a stack that is told vectors of `condition_width`, or none."""
    more = {"condition_width": condition_width} if config.adaptive else {}
    return build(config, width=width, **more)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) * weight + bias."""

    bias: nn.Parameter | None

    def __init__(self, config: LayerNormConfig, width: int) -> None:
        super().__init__()
        self.eps = config.eps
        self.shape = (width,)
        self.weight = nn.Parameter(torch.empty(width))
        self.register_parameter("bias", nn.Parameter(torch.empty(width)) if config.bias else None)

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        own = self._parameters  # a dict: at one token a step, attributes of modules are dear
        return torch.layer_norm(x, self.shape, own["weight"], own["bias"], self.eps)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight; the mean square is taken in fp32, as in Llama and T5."""

    def __init__(self, config: RMSNormConfig, width: int) -> None:
        super().__init__()
        self.eps = config.eps
        self.shape = (width,)
        self.weight = nn.Parameter(torch.empty(width))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        weight: Any = self._parameters["weight"]
        if native.reads(x) and weight.dtype in native.FLOATS:
            return native.rms_norm(x, weight, self.eps)
        return torch.rms_norm(x, self.shape, weight, self.eps)


class ScaleNorm(nn.Module):
    """scale * x / max(|x|, eps), with one learned scalar."""

    def __init__(self, config: ScaleNormConfig, width: int) -> None:
        super().__init__()
        self.eps = config.eps
        self.width = width
        self.scale = nn.Parameter(torch.empty(()))

    def reset_parameters(self) -> None:
        nn.init.constant_(self.scale, self.width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1, eps=self.eps) * self.scale


class ResponseNorm(nn.Module):
    """x + weight * x * r + bias, r the length of a channel over the mean length of all channels."""

    packs = False  # a channel's length is that over the whole row

    def __init__(self, config: ResponseNormConfig, width: int) -> None:
        super().__init__()
        self.eps = config.eps
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight), nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:  # b n d
        length = x.norm(dim=1, keepdim=True)  # b 1 d
        response = length / (length.mean(dim=-1, keepdim=True) + self.eps)
        return self.weight * (x * response) + self.bias + x


class AdaptiveNorm(nn.Module):
    """norm(x) * (1 + scale) + shift, both a linear map of silu(condition); it starts as norm(x)."""

    def __init__(
        self, config: AdaptiveNormConfig, width: int, condition_width: int | None = None
    ) -> None:
        super().__init__()
        if condition_width is None:
            raise ConfigError("norm 'adaptive' serves a stack that is told a vector; none is here.")
        self.norm = None if config.norm is None else build(config.norm, width=width)
        self.map = ZeroLinear(condition_width, 2 * width, config.bias)  # rows scale | shift

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:  # b n d, b e -> b n d
        """Raises ConfigError without a condition."""
        if condition is None:
            raise ConfigError("condition: the adaptive norms of this stack read a vector (b e).")
        scale, shift = self.map(F.silu(condition))[:, None].chunk(2, dim=-1)  # b 1 d each
        y = x if self.norm is None else self.norm(x)
        return y * (1 + scale) + shift


class ZeroLinear(Linear):
    """A linear layer that gives zeros until it learns."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
