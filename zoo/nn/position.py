"""Positions: how a stack knows where a token stands.

One interface with three places to act: on the input (`embed`), on queries and keys (`angles`,
applied by
`rotate`), and on the scores (`bias`). What needs parameters in every layer adds a fourth
(`layer_part`).
"""

# b batch, n tokens, q queries, k keys, d width, h heads, c channels of a head

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.nn.linear import fill_normal_
from zoo.nn.schema import (
    AlibiPositionConfig,
    LearnedGridPositionConfig,
    LearnedPositionConfig,
    RotaryGridPositionConfig,
    RotaryPositionConfig,
    SinusoidalPositionConfig,
)

__all__ = [
    "AlibiPosition",
    "Geometry",
    "LearnedGridPosition",
    "LearnedPosition",
    "Position",
    "RotaryGridPosition",
    "RotaryPosition",
    "SinusoidalPosition",
    "Where",
    "rotate",
]


@dataclass(frozen=True)
class Geometry:
    """What a position is told when it is built: the sizes of its stack."""

    width: int
    heads: int
    head_dim: int
    causal: bool = False
    length: int | None = None
    grid: tuple[int, ...] | None = None  # rows and columns of image patches
    prefix: int = 0  # tokens before the grid
    std: float = 0.02


@dataclass(frozen=True)
class Where:
    """Where the tokens of one call stand. Positions follow the padding mask, so left padding
    changes nothing."""

    queries: Tensor  # b|1 q, whole numbers
    keys: Tensor  # b|1 k; equal to queries without a cache
    grid: tuple[int, ...] | None = None
    prefix: int = 0
    start: int = 0  # tokens in the cache
    clip: tuple[int, int, int] | None = None  # times, rows, columns that the batch is pieces of
    longest: int = 0  # tokens of the longest sequence, where `keys` does not say


class Position(nn.Module):
    """The interface; every method may stay as it is."""

    # whether `Where.queries` alone says where a token stands: then sequences may share a row
    packs = False

    def embed(self, x: Tensor, where: Where) -> Tensor:  # b n d -> b n d
        """Returns the input with positions in it."""
        return x

    def angles(self, where: Where, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """Returns (cos, sin), each (b|1 1 q c'), with c' the channels that turn; None when
        nothing does."""
        return None

    def bias(self, where: Where, dtype: torch.dtype) -> Tensor | None:
        """Returns what is added to the scores of every layer, (b|1 h q k)."""
        return None

    def layer_part(self) -> nn.Module | None:
        """Returns a new module for one layer's attention, for positions with parameters in every
        layer."""
        return None


# -- on the input ----------------------------------------------------------------------------------


class LearnedPosition(Position):
    """x + table[position]."""

    packs = True

    def __init__(self, config: LearnedPositionConfig, geometry: Geometry) -> None:
        super().__init__()
        length = config.length or geometry.length
        if length is None and geometry.grid is not None:
            length = math.prod(geometry.grid) + geometry.prefix
        if length is None:
            raise ConfigError(
                "position 'learned' needs a length: set it, or the backbone's `length`."
            )
        self.offset, self.rows = config.offset, length
        self.std = geometry.std
        self.weight = nn.Parameter(torch.empty(length + config.offset, geometry.width))

    def reset_parameters(self) -> None:
        fill_normal_(self.weight, self.std)

    def embed(self, x: Tensor, where: Where) -> Tensor:
        rows = self.rows
        # Padding takes no row: only what is longer with it is looked at, which costs a sync.
        if where.keys.shape[-1] > rows or where.longest > rows:
            count = int(where.queries.max()) + 1
            if count > rows:
                raise ConfigError(
                    f"{count} tokens exceed the {rows} positions that this model has learned."
                )
        places = where.queries + self.offset if self.offset else where.queries
        weight: Any = self._parameters["weight"]  # a dict: attributes are dear at one token a step
        return x + torch.embedding(weight, places)


class LearnedGridPosition(Position):
    """x + table over a grid, bicubically interpolated when a picture has another grid than the
    table."""

    def __init__(self, config: LearnedGridPositionConfig, geometry: Geometry) -> None:
        super().__init__()
        if geometry.grid is None:
            raise ConfigError("position 'learned-grid' serves image patches; text takes 'learned'.")
        self.grid = geometry.grid
        self.rows = geometry.prefix if config.prefix is None else config.prefix
        self.antialias = config.antialias
        self.std = geometry.std
        self.weight = nn.Parameter(
            torch.empty(self.rows + math.prod(geometry.grid), geometry.width)
        )

    def reset_parameters(self) -> None:
        fill_normal_(self.weight, self.std)

    def embed(self, x: Tensor, where: Where) -> Tensor:
        grid = self.grid if where.grid is None else where.grid
        same = tuple(grid) == tuple(self.grid)
        free = where.prefix - self.rows  # prefix tokens without a position, such as registers
        if same and free == 0:
            return x + self.weight
        patches = self.weight[self.rows :] if same else self.resized(grid)
        return x + torch.cat([self.weight[: self.rows], F.pad(patches, (0, 0, free, 0))])

    def resized(self, grid: tuple[int, ...]) -> Tensor:
        """Returns the grid's rows of the table interpolated to another grid, (rows * columns,
        d)."""
        table = self.weight[self.rows :].float().reshape(1, *self.grid, -1).permute(0, 3, 1, 2)
        table = F.interpolate(
            table, size=tuple(grid), mode="bicubic", align_corners=False, antialias=self.antialias
        )
        return table.flatten(2)[0].T.to(self.weight.dtype)


class SinusoidalPosition(Position):
    """x + fixed sines and cosines of the position; no parameters and no longest length."""

    packs = True

    def __init__(self, config: SinusoidalPositionConfig, geometry: Geometry) -> None:
        super().__init__()
        if geometry.width % 2:
            raise ConfigError(f"position 'sinusoidal' needs an even width, got {geometry.width}.")
        self.config = config
        self.width = geometry.width

    def embed(self, x: Tensor, where: Where) -> Tensor:
        return x + self.table(where.queries).to(x.dtype)

    def table(self, positions: Tensor) -> Tensor:
        """Returns the encodings of positions, (... d) in fp32."""
        half = self.width // 2
        channel = torch.arange(half, device=positions.device, dtype=torch.float32)
        steps = half if self.config.spacing == "paper" else max(half - 1, 1)
        frequency = torch.exp(channel * (-math.log(self.config.period) / steps))
        angle = (positions.float() + self.config.offset)[..., None] * frequency
        if self.config.layout == "split":
            return torch.cat([angle.sin(), angle.cos()], dim=-1)
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


# -- on queries and keys ---------------------------------------------------------------------------


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns pairs (channel i, channel i + half) of x (b h n c) by the given angles; channels
    past cos' are kept."""
    channels = cos.shape[-1]
    if channels < x.shape[-1]:
        turned = rotate(x[..., :channels], cos, sin)
        return torch.cat([turned, x[..., channels:]], dim=-1)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class RotaryPosition(Position):
    """Rotary positions with the published ways to stretch them to longer contexts."""

    def __init__(self, config: RotaryPositionConfig, geometry: Geometry) -> None:
        super().__init__()
        self.config = config
        self.packs = config.scaling != "dynamic"  # which looks at the length of the whole row
        self.channels = int(geometry.head_dim * config.fraction)
        if self.channels % 2:
            raise ConfigError(f"position 'rope' turns channels in pairs, got {self.channels}.")
        if config.scaling == "dynamic" and self.channels < 4:
            raise ConfigError("position 'rope': scaling 'dynamic' needs 4 channels or more.")

    def angles(self, where: Where, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        frequency, factor = self.frequencies(where)
        angle = where.queries[..., None].float() * frequency  # b|1 q c/2
        angle = torch.cat([angle, angle], dim=-1)[:, None]  # b|1 1 q c
        return (angle.cos() * factor).to(dtype), (angle.sin() * factor).to(dtype)

    def frequencies(self, where: Where) -> tuple[Tensor, float]:
        """Returns the frequency of each pair of channels, (c/2) in fp32 or (b|1 1 c/2) where it
        depends on the text's length, and the factor on cos and sin."""
        c, config = self.channels, self.config
        device = where.queries.device
        exponent = torch.arange(0, c, 2, device=device, dtype=torch.float32) / c
        theta: float | Tensor = config.theta
        if config.scaling == "dynamic":  # NTK: the base grows with the length of each text
            length = (where.keys.amax(-1) + 1).clamp(min=config.original_length)[:, None, None]
            stretch = config.factor * length / config.original_length - (config.factor - 1)
            theta = theta * stretch ** (c / (c - 2))  # b|1 1 1
        frequency = theta**-exponent
        if config.scaling == "linear":
            return frequency / config.factor, 1.0
        if config.scaling == "llama3":
            return self._llama3(frequency), 1.0
        if config.scaling == "yarn":
            factor = config.attention_factor
            return self._yarn(frequency), factor or 0.1 * math.log(config.factor) + 1.0
        return frequency, 1.0

    def _llama3(self, frequency: Tensor) -> Tensor:
        """Keeps short waves, stretches long ones, blends between (Llama 3.1's rule)."""
        config = self.config
        turns = config.original_length * frequency / (2 * math.pi)
        low, high = config.low_frequency_factor, config.high_frequency_factor
        keep = ((turns - low) / (high - low)).clamp(0, 1)
        return keep * frequency + (1 - keep) * frequency / config.factor

    def _yarn(self, frequency: Tensor) -> Tensor:
        """Peng et al. 2023, arXiv 2309.00071: a ramp over channels between kept and stretched."""
        config, c = self.config, self.channels

        def channel(turns: float) -> float:
            waves = config.original_length / (turns * 2 * math.pi)
            return c * math.log(waves) / (2 * math.log(config.theta))

        low = max(math.floor(channel(config.beta_fast)), 0)
        high = min(math.ceil(channel(config.beta_slow)), c - 1)
        pair = torch.arange(c // 2, device=frequency.device, dtype=torch.float32)
        stretch = ((pair - low) / max(high - low, 0.001)).clamp(0, 1)
        return frequency / config.factor * stretch + frequency * (1 - stretch)


class RotaryGridPosition(Position):
    """An equal share of each head's channels turns with each axis of the grid: row and column, or
    time, row and column. Prefix tokens stay as they are."""

    def __init__(self, config: RotaryGridPositionConfig, geometry: Geometry) -> None:
        super().__init__()
        if geometry.grid is None:
            raise ConfigError("position 'rope-grid' serves image patches; text takes 'rope'.")
        whole = 2 * len(geometry.grid)
        if geometry.head_dim % whole:
            raise ConfigError(
                f"position 'rope-grid' needs head_dim divisible by {whole}, got "
                f"{geometry.head_dim}."
            )
        self.theta, self.still = config.theta, config.before == "still"
        self.pairs = geometry.head_dim // whole  # of channels, for each axis

    def angles(self, where: Where, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        assert where.grid is not None
        device = where.queries.device
        exponent = torch.arange(self.pairs, device=device, dtype=torch.float32) / self.pairs
        frequency = self.theta**-exponent
        axes = (torch.arange(s, device=device, dtype=torch.float32) for s in where.grid)
        places = torch.meshgrid(*axes, indexing="ij")  # of every token of the grid, on each axis
        angle = torch.cat([place.flatten()[:, None] * frequency for place in places], dim=-1)
        angle = F.pad(angle, (0, 0, where.prefix, 0))  # angle 0 leaves a token unturned
        angle = torch.cat([angle, angle], dim=-1)[None, None]
        cos, sin = angle.cos(), angle.sin()
        if not self.still:
            cos[:, :, : where.prefix] = 0
        count = where.queries.shape[-1]
        if count != angle.shape[2]:  # a part of the grid: a step with a cache
            first = where.start
            cos, sin = cos[:, :, first : first + count], sin[:, :, first : first + count]
        return cos.to(dtype), sin.to(dtype)


# -- on the scores ---------------------------------------------------------------------------------


def alibi_slopes(heads: int, max_bias: float = 8.0) -> Tensor:
    """Returns the slope of each head: a geometric series, filled up from the next power of two
    (section 3)."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-max_bias * (i + 1) / power) for i in range(power)]
    slopes += [2 ** (-max_bias * (2 * i + 1) / (2 * power)) for i in range(heads - power)]
    return torch.tensor(slopes)


@cache
def _slopes(heads: int, max_bias: float, device: torch.device) -> Tensor:  # h 1 1
    """Returns the slopes where they are used; a CUDA graph may not copy them there itself."""
    with torch.inference_mode(False):
        return alibi_slopes(heads, max_bias).to(device)[:, None, None]


class AlibiPosition(Position):
    """-slope * |distance| on the scores."""

    def __init__(self, config: AlibiPositionConfig, geometry: Geometry) -> None:
        super().__init__()
        self.config, self.heads = config, geometry.heads

    def bias(self, where: Where, dtype: torch.dtype) -> Tensor:
        config = self.config
        slopes = _slopes(self.heads, config.max_bias, where.keys.device)
        if config.rounding == "bfloat16":  # what differs from a distance is the same for all keys
            bias = slopes.bfloat16() * where.keys[:, None, None].bfloat16()  # b|1 h 1 k
        else:
            distance = (where.queries[:, :, None] - where.keys[:, None, :]).abs()  # b|1 q k
            bias = -slopes * distance[:, None]
        return bias.to(dtype) * config.factor
