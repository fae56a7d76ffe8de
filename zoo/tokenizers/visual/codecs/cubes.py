"""Blocks of pixels as vectors, and back: one linear map for patches of frames and for tubelets."""

# b batch, c channels, t h w frames and pixels, s p r frames, height and width of a block, d width

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from zoo.errors import DataError
from zoo.nn.linear import Linear
from zoo.nn.schema import NormConfig
from zoo.registry import build

__all__ = ["FromCubes", "ToCubes", "places"]


class ToCubes(nn.Module):
    """(b c t h w) -> (b times rows columns d); with a norm, on both sides of the map."""

    def __init__(
        self,
        channels: int,
        block: tuple[int, int, int],
        width: int,
        norm: NormConfig | None = None,
    ) -> None:
        super().__init__()
        self.block = block
        inputs = channels * block[0] * block[1] * block[2]
        self.norm_in = nn.Identity() if norm is None else build(norm, width=inputs)
        self.map = Linear(inputs, width, std=inputs**-0.5)
        self.norm_out = nn.Identity() if norm is None else build(norm, width=width)

    def forward(self, pixels: Tensor) -> Tensor:
        s, p, r = self.block
        blocks = rearrange(pixels, "b c (t s) (h p) (w r) -> b t h w (c s p r)", s=s, p=p, r=r)
        return self.norm_out(self.map(self.norm_in(blocks)))


class FromCubes(nn.Module):
    """(b times rows columns d) -> (b c t h w), with a bias for each pixel of a block or for each
    channel."""

    def __init__(
        self, channels: int, block: tuple[int, int, int], width: int, pixel_bias: bool = True
    ) -> None:
        super().__init__()
        self.block = block
        outputs = channels * block[0] * block[1] * block[2]
        self.map = Linear(width, outputs, pixel_bias, std=width**-0.5)
        self.bias = None if pixel_bias else nn.Parameter(torch.empty(channels))

    def reset_parameters(self) -> None:
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        s, p, r = self.block
        y = rearrange(self.map(x), "b t h w (c s p r) -> b c (t s) (h p) (w r)", s=s, p=p, r=r)
        return y if self.bias is None else y + self.bias[:, None, None, None]


def places(height: int, width: int, factor: tuple[int, int]) -> tuple[int, int]:
    """Returns rows and columns of the grid of a picture; raises DataError when there is a rest."""
    p, r = factor
    if height % p or width % r or not height or not width:
        raise DataError(
            f"A picture of {height} x {width} pixels does not divide into places of {p} x {r}."
        )
    return height // p, width // r
