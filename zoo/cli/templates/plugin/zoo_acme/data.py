"""The data set. Drawn from a seed, so that every machine has the same pictures."""

# n pictures, h w pixels

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo_acme.schema import SquaresConfig

SIZE, SIDE = 16, 6  # of a picture and of its square, in pixels
SEEDS = {"train": 0, "test": 1}


class Squares:
    """`data=acme/squares`: grey pictures (1 16 16) in [-1, 1], label 1 for a filled square."""

    labels = ["hollow", "filled"]

    def __init__(self, config: SquaresConfig) -> None:
        self.config = config

    def split(self, name: str, model: Any = None) -> Split:
        """Returns the pictures of `"train"` or `"test"`."""
        count = self.config.count if name == "train" else self.config.count // 4
        generator = torch.Generator().manual_seed(SEEDS[name])
        pixels = self.config.noise * torch.randn(count, 1, SIZE, SIZE, generator=generator) - 0.5
        corners = torch.randint(0, SIZE - SIDE + 1, (count, 2), generator=generator)
        labels = torch.arange(count) % 2
        for picture, (top, left), label in zip(pixels, corners.tolist(), labels, strict=True):
            square = picture[0, top : top + SIDE, left : left + SIDE]
            square += 1.0
            if not label:
                square[2:-2, 2:-2] -= 1.0
        return Split(pixels.clamp(-1, 1), labels)


class Split:
    """Samples by index."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> dict[str, Tensor]:
        """Returns `pixels` (b 1 h w) and `labels` (b). Whatever is random about sample i in
        training is to be drawn from `seeds[i]`; nothing is here."""
        rows = torch.as_tensor(indices)
        return {"pixels": self.pixels[rows], "labels": self.labels[rows]}
