"""Grids of codes: which of them a code sees, and where it stands.

A sequence of such codes is `prefix` tokens (a text, a start token) and then the grid in raster
order: rows of a picture, or frames of rows of a clip.
"""

# b batch, n tokens, d width, q queries, k keys

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.nn.linear import fill_normal_
from zoo.nn.position import Geometry, Position, Where

if TYPE_CHECKING:
    from zoo.nn.schema import LearnedAxialPositionConfig

__all__ = ["GridRule", "LearnedAxialPosition"]


# -- which codes are seen --------------------------------------------------------------------------


@dataclass(frozen=True)
class GridRule:
    """Which codes a code sees (Ramesh et al. 2021, appendix B); what stands before the grid is seen
    by all. It says nothing of what comes first: `Mask.causal` does.

    `row`: as far as its own column in the next row, in raster order: a row and one code more.
    `column`: the codes of its column. `convolution`: a square of `size` around it.
    """

    pattern: str
    size: int
    grid: tuple[int, ...]
    prefix: int

    def matrix(self, device: torch.device) -> Tensor:
        """Returns the whole rule (n n), made once: a step with a cache reads its last row."""
        return _matrix(self, str(device))


@lru_cache(maxsize=64)
def _matrix(rule: GridRule, device: str) -> Tensor:
    count = math.prod(rule.grid)
    place = torch.arange(count)
    width = rule.grid[-1]
    row, column = place // width, place % width
    if rule.pattern == "row":
        distance = place[:, None] - place[None]
        seen = distance.abs() <= width
    elif rule.pattern == "column":
        seen = column[:, None] == column[None]
    else:
        reach = rule.size // 2
        rows = (row[:, None] - row[None]).abs() <= reach
        seen = rows & ((column[:, None] - column[None]).abs() <= reach)
    whole = torch.ones(rule.prefix + count, rule.prefix + count, dtype=torch.bool)
    whole[rule.prefix :, rule.prefix :] = seen
    return whole.to(device)


# -- where they stand ------------------------------------------------------------------------------


class LearnedAxialPosition(Position):
    """x + one row of a table for every axis. Smaller grids than the tables' read their first rows,
    so that a clip may be shorter and a picture is a clip of one frame."""

    def __init__(self, config: LearnedAxialPositionConfig, geometry: Geometry) -> None:
        super().__init__()
        if geometry.grid is None:
            raise ConfigError("position 'learned-axial' serves a grid; text takes 'learned'.")
        self.std = geometry.std
        self.axes = Tables(geometry)
        rows = geometry.prefix if config.before else 0
        self.before = nn.Parameter(torch.empty(rows, geometry.width)) if rows else None

    def reset_parameters(self) -> None:
        if self.before is not None:
            fill_normal_(self.before, self.std)

    def embed(self, x: Tensor, where: Where) -> Tensor:  # b n d -> b n d
        """Raises ConfigError for a grid that is larger than the tables."""
        assert where.grid is not None
        sizes = [table.shape[0] for table in self.axes]
        if len(where.grid) != len(sizes) or any(g > s for g, s in zip(where.grid, sizes)):
            raise ConfigError(
                f"A grid of {where.grid} codes is more than the {tuple(sizes)} positions that "
                "this model has learned."
            )
        place = (where.queries - where.prefix).clamp(min=0)
        vectors = x.new_zeros(())
        for axis in reversed(range(len(sizes))):
            index = place % where.grid[axis] if axis else place
            place = place // where.grid[axis]
            vectors = vectors + F.embedding(index, self.axes[axis])
        if where.prefix:
            inside = (where.queries >= where.prefix)[..., None]
            if self.before is None:
                vectors = vectors * inside
            else:
                first = F.embedding(where.queries.clamp(max=where.prefix - 1), self.before)
                vectors = torch.where(inside, vectors, first)
        return x + vectors


class Tables(nn.ParameterList):
    """A table for every axis, which initialises itself: who loads a part of a model asks the owner
    of what is missing."""

    def __init__(self, geometry: Geometry) -> None:
        assert geometry.grid is not None
        super().__init__(torch.empty(size, geometry.width) for size in geometry.grid)
        self.std = geometry.std

    def reset_parameters(self) -> None:
        for table in self:
            fill_normal_(table, self.std)
