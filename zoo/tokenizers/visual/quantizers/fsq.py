"""Finite scalar quantization."""

# ... any batch and grid, w channels

from __future__ import annotations

import torch
from torch import Tensor

from zoo.tokenizers.visual.quantizers.base import Quantizer
from zoo.tokenizers.visual.schema import ScalarQuantizerConfig

__all__ = ["ScalarQuantizer"]

_ROOM = 1e-3  # between the bound and the outermost level, so that it is reached (appendix A)


class ScalarQuantizer(Quantizer):
    """Each channel bounded by tanh and rounded; the first channel counts fastest in an id."""

    config: ScalarQuantizerConfig

    def __init__(
        self, config: ScalarQuantizerConfig, width: int, out: int | None, **_: object
    ) -> None:
        super().__init__(config, width, out, len(config.levels))

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        levels = self._levels(x)
        dtype, x = x.dtype, x.float()
        half = (levels - 1) * (1 + _ROOM) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)  # even counts have no level at 0
        bounded = (x + (offset / half).atanh()).tanh() * half - offset
        rounded = bounded.round()
        middle = levels // 2
        ids = ((rounded + middle).long() * self._places(x)).sum(-1)
        codes = (bounded + (rounded - bounded).detach()) / middle
        return ids, codes.to(dtype), {}

    def codes_of(self, ids: Tensor) -> Tensor:
        levels = self._levels(ids)
        digits = ids[..., None] // self._places(ids) % levels
        middle = levels // 2
        weight = next(self.parameters(), None)
        return ((digits - middle) / middle).to(torch.float32 if weight is None else weight.dtype)

    def _levels(self, like: Tensor) -> Tensor:  # w
        return torch.tensor(self.config.levels, device=like.device)

    def _places(self, like: Tensor) -> Tensor:  # w, what one level more adds to the id
        levels = self._levels(like)
        return torch.cat([levels.new_ones(1), levels[:-1].cumprod(0)])
