"""Three stacks in a U: at the grid, at half of it, at the grid again."""

# b batch, n places of the grid, d width in and out, c width of the outer stacks, y x rows, columns

from __future__ import annotations

from typing import Any

from einops import rearrange
from torch import Tensor, nn

from zoo.backbones.schema import UTransformerConfig
from zoo.errors import ConfigError
from zoo.nn.attention import Record
from zoo.nn.cache import Cache
from zoo.nn.linear import Linear
from zoo.nn.mask import Mask
from zoo.registry import build

__all__ = ["UTransformer"]

Grid = tuple[int, ...]


class UTransformer(nn.Module):
    """norm, in, (shrink,) down, widen, middle, narrow, up, (grow,) out, norm. It is called as the
    other stacks are, with a grid, and keeps no cache."""

    def __init__(
        self,
        config: UTransformerConfig,
        *,
        grid: Grid | None = None,
        prefix: int = 0,
        memory_width: int | None = None,
        condition_width: int | None = None,
    ) -> None:
        super().__init__()
        if prefix:
            raise ConfigError(
                "backbone: a U has no place for tokens before the grid; let it read the prompt by "
                "cross_attention."
            )
        self.config, self.grid = config, grid
        width, outer, inner = config.width, config.down.width, config.middle.width
        about: dict[str, Any] = {
            "grid": None if grid is None else self._coarse(grid),
            "memory_width": memory_width,
            "condition_width": condition_width,
        }
        self.input_norm = build(config.norm, width=width)
        self.input = self._map(width, outer)
        if config.factor > 1:
            self.shrink = Resample(config, outer, down=True)
        self.down = build(config.down, **about)
        self.widen = self._map(outer, inner)
        self.middle = build(config.middle, **about)
        self.narrow = self._map(inner, outer)
        self.up = build(config.up, **about)
        if config.factor > 1:
            self.grow = Resample(config, outer, down=False)
        self.output = self._map(outer, width)
        self.output_norm = build(config.norm, width=width)

    def forward(
        self,
        x: Tensor,  # b n d
        *,
        mask: Mask | None = None,
        grid: Grid | None = None,
        cache: Cache | None = None,
        record: Record | None = None,  # of the middle
        **read: Tensor | None,  # memory, memory_mask, condition: as the stacks take them
    ) -> Tensor:  # b n d
        """Raises ConfigError for a mask, a cache, or a grid that does not divide."""
        if mask is not None or cache is not None:
            raise ConfigError("backbone: a U sees all of its grid at once, without mask or cache.")
        full = grid or self.grid
        if full is None:
            raise ConfigError("backbone: a U needs a grid.")
        inside: dict[str, Any] = {"grid": self._coarse(full), **read}
        x = self.input(self.input_norm(x))  # b n c
        if self.config.factor > 1:
            x = self.shrink(x, inside["grid"])
        x = self.down(x, **inside)
        x = self.middle(self.widen(x), record=record, **inside)
        x = self.up(self.narrow(x), **inside)
        if self.config.factor > 1:
            x = self.grow(x, inside["grid"])
        return self.output_norm(self.output(x))

    def fsdp_units(self) -> list[nn.Module]:
        """Returns what is sharded as a unit."""
        return [unit for s in (self.down, self.middle, self.up) for unit in s.fsdp_units()]

    def _coarse(self, grid: Grid) -> Grid:
        if any(size % self.config.factor for size in grid):
            raise ConfigError(f"factor: a grid of {grid} does not divide by {self.config.factor}.")
        return tuple(size // self.config.factor for size in grid)

    def _map(self, before: int, after: int) -> Linear:
        return Linear(before, after, self.config.bias, self.config.init_std)


class Resample(nn.Module):
    """A norm, and a linear map of each block of places to one place, or back."""

    def __init__(self, config: UTransformerConfig, width: int, down: bool) -> None:
        super().__init__()
        self.factor, self.down = config.factor, down
        self.norm = build(config.norm, width=width)
        block = config.factor**2 * width
        sizes = (block, width) if down else (width, block)
        self.map = Linear(*sizes, config.bias and down, config.init_std)
        self.bias = None  # of a place, whichever it is of its block
        if config.bias and not down:
            self.bias = nn.Parameter(self.map.weight.new_empty(width))

    def reset_parameters(self) -> None:
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, coarse: Grid) -> Tensor:  # b n c, rows and columns of the coarse
        sizes = {"y": coarse[0], "x": coarse[1], "p": self.factor, "q": self.factor}
        x = self.norm(x)
        if self.down:
            return self.map(rearrange(x, "b (y p x q) c -> b (y x) (c p q)", **sizes))
        x = rearrange(self.map(x), "b (y x) (c p q) -> b (y p x q) c", **sizes)
        return x if self.bias is None else x + self.bias
