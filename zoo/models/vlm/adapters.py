"""Adapters: from the features of a vision tower to tokens of a language model."""

# t tiles, n features (prefix and patches), i their width, r c rows and columns of patches,
# m tokens, d width of the language model

from __future__ import annotations

from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.models.vlm.schema import (
    AdapterConfig,
    LinearAdapterConfig,
    MLPAdapterConfig,
    PixelShuffleAdapterConfig,
    ResamplerAdapterConfig,
)
from zoo.nn.feedforward import ACTIVATIONS
from zoo.nn.linear import Linear, fill_normal_
from zoo.registry import build

__all__ = [
    "Adapter",
    "LinearAdapter",
    "MLPAdapter",
    "PixelShuffleAdapter",
    "ResamplerAdapter",
]

Grid = tuple[int, int]


class Adapter(nn.Module):
    """The base. `forward(features, grid)` takes features whose last rows * columns are patches, row
    by row; what stands before them stays in front."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config

    def grid(self, grid: Grid) -> Grid | None:
        """Returns the rows and columns of tokens that stand for this grid of patches, None when
        tokens have no place any more. Raises ConfigError for a grid that does not divide."""
        return shrunk(grid, self.config.pool, "pool")

    def forward(self, features: Tensor, grid: Grid) -> Tensor:  # t n i -> t m d
        return self.project(*pooled(features, grid, self.config.pool))

    def project(self, features: Tensor, grid: Grid) -> Tensor:
        """Returns the tokens (t m d) of features that are already pooled."""
        raise NotImplementedError


class LinearAdapter(Adapter):
    """LLaVA's first: a matrix."""

    def __init__(self, config: LinearAdapterConfig, inputs: int, width: int) -> None:
        super().__init__(config)
        self.linear = Linear(inputs, width, config.bias)

    def project(self, features: Tensor, grid: Grid) -> Tensor:
        return self.linear(features)


class MLPAdapter(Adapter):
    """LLaVA 1.5's: matrices with an activation between them."""

    config: MLPAdapterConfig

    def __init__(self, config: MLPAdapterConfig, inputs: int, width: int) -> None:
        super().__init__(config)
        hidden = config.hidden or width
        widths = [inputs, *[hidden] * (config.depth - 1), width]
        self.layers = nn.ModuleList(
            Linear(before, after, config.bias) for before, after in pairwise(widths)
        )
        self.activation = ACTIVATIONS[config.activation]

    def project(self, features: Tensor, grid: Grid) -> Tensor:
        x = self.layers[0](features)
        for layer in self.layers[1:]:
            x = layer(self.activation(x))
        return x


class PixelShuffleAdapter(MLPAdapter):
    """Squares of patches side by side in one token, then an MLP."""

    config: PixelShuffleAdapterConfig

    def __init__(self, config: PixelShuffleAdapterConfig, inputs: int, width: int) -> None:
        long = inputs * config.factor**2
        super().__init__(config, long, width)
        if config.norm is not None:
            self.norm = build(config.norm, width=long)

    def grid(self, grid: Grid) -> Grid | None:
        return shrunk(shrunk(grid, self.config.pool, "pool"), self.config.factor, "factor")

    def project(self, features: Tensor, grid: Grid) -> Tensor:
        f, (rows, columns) = self.config.factor, shrunk(grid, self.config.factor, "factor")
        if features.shape[1] != grid[0] * grid[1]:
            raise ConfigError("class_token: a pixel shuffle has no square to put it into.")
        squares = rearrange(
            features, "t (r f c g) i -> t (r c) (f g i)", r=rows, c=columns, f=f, g=f
        )
        return super().project(squares if self.config.norm is None else self.norm(squares), grid)


class ResamplerAdapter(Adapter):
    """Learned queries that read the patches: always as many tokens as queries."""

    config: ResamplerAdapterConfig

    def __init__(self, config: ResamplerAdapterConfig, inputs: int, width: int) -> None:
        super().__init__(config)
        backbone = config.backbone
        if backbone.cross_attention is None:
            raise ConfigError("adapter.backbone.cross_attention: a resampler reads by it.")
        self.memory_norm = build(backbone.norm, width=inputs)
        self.queries = nn.Parameter(torch.empty(config.queries, backbone.width))
        self.backbone = build(backbone, memory_width=inputs)
        self.out = Linear(backbone.width, width, std=backbone.init_std)

    def reset_parameters(self) -> None:
        fill_normal_(self.queries, self.config.backbone.init_std)

    def grid(self, grid: Grid) -> Grid | None:
        return None

    def project(self, features: Tensor, grid: Grid) -> Tensor:
        queries = self.queries.expand(features.shape[0], -1, -1)
        return self.out(self.backbone(queries, memory=self.memory_norm(features)))


def shrunk(grid: Grid, factor: int, key: str) -> Grid:
    """Returns the grid of squares of `factor` patches a side; raises ConfigError for a rest."""
    if grid[0] % factor or grid[1] % factor:
        raise ConfigError(
            f"adapter.{key}: {grid[0]} x {grid[1]} patches do not divide into squares of "
            f"{factor} x {factor}."
        )
    return grid[0] // factor, grid[1] // factor


def pooled(features: Tensor, grid: Grid, side: int) -> tuple[Tensor, Grid]:
    """Returns the features with each square of patches averaged, and their grid."""
    if side == 1:
        return features, grid
    rows, columns = shrunk(grid, side, "pool")
    prefix = features.shape[1] - grid[0] * grid[1]
    squares = rearrange(
        features[:, prefix:], "t (r f c g) i -> t (r c) (f g) i", r=rows, c=columns, f=side, g=side
    ).mean(2)
    return torch.cat([features[:, :prefix], squares], dim=1), (rows, columns)
