"""Residual quantization: several codes a place, each for what is left."""

# ... any batch and grid, d channels, q steps

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.registry import build
from zoo.tokenizers.visual.quantizers.base import Quantized, Quantizer
from zoo.tokenizers.visual.schema import ResidualConfig

__all__ = ["Residual"]


class Residual(Quantizer):
    """ids have a last axis q; a place's vector is the sum of its codes' vectors."""

    config: ResidualConfig

    def __init__(self, config: ResidualConfig, width: int, out: int | None, **context: Any) -> None:
        super().__init__(config, width, out, width)
        count = 1 if config.shared else config.steps
        self.steps = nn.ModuleList(
            build(config.quantizer, width=width, out=width, **context) for _ in range(count)
        )

    def forward(self, x: Tensor) -> Quantized:  # ... d
        rest, total, ids = x, torch.zeros_like(x), []
        losses: dict[str, Tensor] = {}
        for step in self._each():
            found = step(rest)
            ids.append(found.ids)
            total = total + found.vectors
            # What is left is measured from the code; the way back leads through the sum.
            rest = rest - found.vectors.detach()
            for name, value in found.losses.items():
                losses[name] = losses.get(name, 0.0) + value / self.config.steps
        return Quantized(torch.stack(ids, dim=-1), self._out(total), losses)

    def codes_of(self, ids: Tensor) -> Tensor:  # ... q -> ... d
        parts = [step.lookup(ids[..., i]) for i, step in enumerate(self._each())]
        return torch.stack(parts).sum(0)

    def anneal(self, share: float) -> None:
        for step in self._each():
            step.anneal(share)

    def _each(self) -> list[Quantizer]:
        steps: list[Any] = list(self.steps)
        return steps * self.config.steps if self.config.shared else steps
