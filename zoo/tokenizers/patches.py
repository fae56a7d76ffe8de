"""Image patches: the tokens of a vision transformer."""

# b batch, c channels, h w pixels, p patch height, r patch width, n tokens, d width

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import DataError
from zoo.nn.linear import fill_normal_
from zoo.tokenizers.image import as_list, to_pixels
from zoo.tokenizers.schema import PatchTokenizerConfig

__all__ = ["PatchTokenizer"]


class PatchTokenizer(nn.Module):
    """Raw pictures -> pixels (`preprocess`) -> one token per patch, row by row (`forward`)."""

    def __init__(self, config: PatchTokenizerConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(width, config.channels, *config.patch))
        self.bias = nn.Parameter(torch.empty(width)) if config.bias else None

    def reset_parameters(self) -> None:
        # as a linear layer over the patch's pixels (LeCun normal), as in timm
        fill_normal_(self.weight, self.weight[0].numel() ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of a picture of the configured size."""
        return self.grid_for(*self.config.image)

    def grid_for(self, height: int, width: int) -> tuple[int, int]:
        """Returns rows and columns of patches; raises DataError when there is a rest."""
        p, r = self.config.patch
        ragged = (height % p or width % r) and not self.config.cut
        if ragged or height < p or width < r:
            raise DataError(
                f"A picture of {height} x {width} pixels does not divide into patches of {p} x {r}."
            )
        return height // p, width // r

    def preprocess(self, images: Any, size: tuple[int, int] | None = None) -> Tensor:
        """Returns pixels (b c h w) of one raw picture or several, as the weights expect them.

        `size` (height, width) replaces the configured one, for other resolutions and shapes.
        """
        config = self.config
        height, width = size or config.size or config.image
        self.grid_for(height, width)
        return to_pixels(
            as_list(images)[0],
            size=(height, width),
            channels=config.channels,
            resize=config.resize,
            crop=config.crop,
            crop_offset=config.crop_offset,
            interpolation=config.interpolation,
            mean=config.mean,
            std=config.std,
        )

    def forward(self, pixels: Tensor) -> Tensor:  # b c h w -> b n d
        if pixels.ndim != 4 or pixels.shape[1] != self.config.channels:
            raise DataError(
                f"Expected pixels (batch, {self.config.channels}, height, width), "
                f"got {tuple(pixels.shape)}."
            )
        self.grid_for(*pixels.shape[2:])
        tokens = F.conv2d(pixels, self.weight, self.bias, stride=tuple(self.config.patch))
        return tokens.flatten(2).transpose(1, 2)
