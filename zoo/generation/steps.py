"""The one interface between models and strategies."""

# b sequences, n tokens, v vocabulary

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from zoo.nn.cache import Cache

__all__ = ["Steps"]


class Steps(Protocol):
    """A batch of sequences that is being continued; models make one for a prompt."""

    cache: Cache
    device: torch.device = torch.device("cpu")  # where tokens are looked for
    # A step and a choice in one, (tokens b 1, options, generator) -> b, where that is faster.
    sample: Callable[..., Tensor] | None = None

    def step(self, tokens: Tensor, every: bool = False) -> Tensor:
        """Takes the next tokens (b n) in and returns the scores of what follows the last one (b v),
        or with `every` of what follows each (b n v)."""

    def select(self, rows: Tensor) -> None:
        """Makes the batch the given rows of it; rows may repeat or be left out."""

    def rewind(self, count: int) -> None:
        """Takes the last `count` tokens back."""
