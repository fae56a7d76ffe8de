"""Caches of keys and values. A decoder hands each layer's new k and v to one and gets all of
them back."""

# b batch, g key heads, n tokens, c channels of a head

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Cache", "DynamicCache"]


class Cache(Protocol):
    """What attention asks of a cache."""

    length: int  # tokens in it

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds new keys and values (b g n c) of a layer and returns all of its keys and values."""

    def memory(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Returns the keys and values of the memory that cross-attention of this layer kept, if
        any."""

    def keep_memory(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Keeps the keys and values of the memory: computed once, read at every step."""


class DynamicCache:
    """Grows by concatenation. Costs 2 * layers * b * g * n * c numbers, and a copy of a layer's
    part per step."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.memories: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def length(self) -> int:
        """Tokens that every layer has seen (within a step, layers that already ran hold more)."""
        return min((k.shape[2] for k, _ in self.layers.values()), default=0)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if layer in self.layers:
            old_k, old_v = self.layers[layer]
            k, v = torch.cat([old_k, k], dim=2), torch.cat([old_v, v], dim=2)
        self.layers[layer] = (k, v)
        return k, v

    def memory(self, layer: int) -> tuple[Tensor, Tensor] | None:
        return self.memories.get(layer)

    def keep_memory(self, layer: int, k: Tensor, v: Tensor) -> None:
        self.memories[layer] = (k, v)
