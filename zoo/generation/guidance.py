"""Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598) over any steps: away from what
would be written without a prompt, or with a negative one."""

# b sequences, n tokens, v vocabulary

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zoo.generation.logits import guided
from zoo.generation.steps import Steps
from zoo.registry import setting

__all__ = ["Guidance", "GuidedPair", "GuidedTogether"]


@dataclass(kw_only=True)
class Guidance:
    """How strongly a prompt is followed. 1 is the model's own distribution and costs nothing."""

    scale: float = setting(1.0, "1 is none; 0 forgets the prompt", low=0.0)
    schedule: Literal["constant", "linear", "cosine"] = setting(
        "constant",
        "linear and cosine: from 1 at the first pass up to scale at the last (Muse, section 2.7), "
        "evenly or slowly at both ends",
    )
    together: bool = setting(
        True, "both in one pass of twice the batch; false takes half the memory and two passes"
    )

    def at(self, time: float) -> float:
        """Returns the scale at a time in 0..1."""
        if self.schedule == "constant":
            return self.scale
        share = time if self.schedule == "linear" else (1 - math.cos(math.pi * time)) / 2
        return 1 + (self.scale - 1) * share


class GuidedTogether(Steps):
    """Steps whose lower half is the same sequences without their prompts."""

    def __init__(self, steps: Steps, scale: float) -> None:
        self.steps, self.scale = steps, scale
        self.cache, self.device = steps.cache, steps.device

    def step(self, tokens: Tensor, every: bool = False) -> Tensor:
        asked, free = self.steps.step(torch.cat([tokens, tokens]), every).chunk(2)
        return guided(asked, free, self.scale)

    def select(self, rows: Tensor) -> None:
        first = self._batch()
        self.steps.select(torch.cat([rows, rows + first]))

    def rewind(self, count: int) -> None:
        self.steps.rewind(count)

    def _batch(self) -> int:
        return next(iter(self.cache.buffers.values()))[0].shape[0] // 2  # type: ignore[attr-defined]


class GuidedPair(Steps):
    """Two steps, one after the other, each with a cache of its own."""

    def __init__(self, asked: Steps, free: Steps, scale: float) -> None:
        self.asked, self.free, self.scale = asked, free, scale
        self.cache, self.device = asked.cache, asked.device

    def step(self, tokens: Tensor, every: bool = False) -> Tensor:
        return guided(self.asked.step(tokens, every), self.free.step(tokens, every), self.scale)

    def select(self, rows: Tensor) -> None:
        self.asked.select(rows)
        self.free.select(rows)

    def rewind(self, count: int) -> None:
        self.asked.rewind(count)
        self.free.rewind(count)
