"""C-ViViT: frames by themselves, then every place along time; exactly causal, of any length, but
where a config says that time leaks."""

# b batch, c channels, h w pixels, t times of the grid, y x rows and columns, d width

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from zoo.registry import build
from zoo.tokenizers.visual.codecs.cubes import FromCubes, ToCubes, places
from zoo.tokenizers.visual.codecs.schema import (
    CausalVideoCodec,
    CausalVideoDecoderConfig,
    CausalVideoEncoderConfig,
)

__all__ = ["CausalVideoDecoder", "CausalVideoEncoder"]


class CausalVideoEncoder(nn.Module):
    """(b c 1+s(t-1) h w) -> (b t y x d). What stands at a time hangs on nothing later, unless
    `time_leaks`."""

    def __init__(
        self, config: CausalVideoEncoderConfig, channels: int, image: tuple[int, int]
    ) -> None:
        super().__init__()
        norm = config.patch_norm
        self.first = ToCubes(channels, (1, *config.factor), config.width, norm)
        self.rest = ToCubes(channels, (config.frames, *config.factor), config.width, norm)
        self.stacks = Factorised(config, image)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.first(pixels[:, :, :1])
        if pixels.shape[2] > 1:
            x = torch.cat([x, self.rest(pixels[:, :, 1:])], dim=1)
        return self.stacks.along_time(self.stacks.in_space(x))


class CausalVideoDecoder(nn.Module):
    """(b t y x d) -> (b c 1+s(t-1) h w)."""

    def __init__(
        self, config: CausalVideoDecoderConfig, channels: int, image: tuple[int, int]
    ) -> None:
        super().__init__()
        self.stacks = Factorised(config, image)
        self.first = FromCubes(channels, (1, *config.factor), config.width)
        self.rest = FromCubes(channels, (config.frames, *config.factor), config.width)

    @property
    def last(self) -> Tensor:
        """The weight of the last layer, where an adversarial loss is weighed against the rest."""
        return self.rest.map.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.stacks.in_space(self.stacks.along_time(x))
        frames = self.first(x[:, :1])
        if x.shape[1] > 1:
            frames = torch.cat([frames, self.rest(x[:, 1:])], dim=2)
        return frames


class Factorised(nn.Module):
    """The two stacks of one direction."""

    def __init__(self, config: CausalVideoCodec, image: tuple[int, int]) -> None:
        super().__init__()
        self.spatial = build(config.spatial, grid=places(*image, config.factor))
        self.temporal = build(config.temporal)

    def in_space(self, x: Tensor) -> Tensor:  # b t y x d
        b, times, rows, columns, _ = x.shape
        each = rearrange(x, "b t y x d -> (b t) (y x) d")
        each = self.spatial(each, grid=(rows, columns), clip=(times, rows, columns))
        return rearrange(each, "(b t) (y x) d -> b t y x d", b=b, y=rows)

    def along_time(self, x: Tensor) -> Tensor:  # b t y x d
        b, times, rows, columns, _ = x.shape
        each = rearrange(x, "b t y x d -> (b y x) t d")
        each = self.temporal(each, clip=(times, rows, columns))
        return rearrange(each, "(b y x) t d -> b t y x d", b=b, y=rows)
