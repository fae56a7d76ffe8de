"""What a classifier answers, of pictures and of texts alike."""

# b samples, k classes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from zoo.errors import ConfigError

__all__ = ["Prediction", "most_probable"]


@dataclass(frozen=True)
class Prediction:
    """One answer of a classifier."""

    label: str
    index: int
    probability: float

    def __str__(self) -> str:
        return f"{self.label} ({self.probability:.1%})"


def most_probable(logits: Tensor, labels: Sequence[str], top: int) -> list[list[Prediction]]:
    """Returns the `top` classes of each row of scores (b k), or all where there are fewer, best
    first. Raises ConfigError for less than one."""
    if top < 1:
        raise ConfigError(f"top: must be at least 1, got {top}.")
    values, indices = logits.float().softmax(-1).topk(min(top, len(labels)))
    return [
        [Prediction(labels[i], i, p) for i, p in zip(index, row, strict=True)]
        for row, index in zip(values.tolist(), indices.tolist(), strict=True)
    ]
