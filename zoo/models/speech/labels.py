"""What decoding finds: labels with the places where they were heard."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Label", "Scorer", "log_add"]

# log-probability that a language model adds for a label after the labels so far
Scorer = Callable[[tuple[int, ...], int], float]


@dataclass(frozen=True, slots=True)
class Label:
    """One label: it stands for the tokens of sound [start, stop)."""

    index: int
    start: int
    stop: int
    probability: float


def log_add(a: float, b: float) -> float:
    """Returns log(e^a + e^b)."""
    high, low = (a, b) if a > b else (b, a)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
