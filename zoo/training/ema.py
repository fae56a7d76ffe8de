"""An exponential average of the weights (Polyak and Juditsky 1992), sharded as the weights are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from zoo.training.distributed import local

__all__ = ["Average"]


class Average:
    """Follows the parameters that learn. Young averages follow faster: the decay is at most (1 +
    step) / (10 + step)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        # clones of sharded parameters are sharded alike: each process averages its own share
        self.values: dict[str, Tensor] = {n: p.detach().clone() for n, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the parameters after `step` (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine, theirs = self._pairs()
        torch._foreach_lerp_(mine, theirs, 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the average into the model, and the weights back afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for mine, theirs in zip(*self._pairs(), strict=True):
            kept = theirs.clone()
            theirs.copy_(mine)
            mine.copy_(kept)

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        mine = [local(value) for value in self.values.values()]
        return mine, [local(p.detach()) for p in self.parameters.values()]
