"""Pictures as a data set: prepared by the model's tokenizer, changed at random in training."""

# b batch, n pictures, c channels, h w pixels

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.augment import augment
from zoo.data.base import Batch
from zoo.data.schema import Augment
from zoo.errors import DataError

__all__ = ["LazyPictureDataset", "PictureDataset", "prepare"]


def prepare(images: list[Any], model: Any = None) -> Tensor:  # n pictures -> n c h w
    """Returns pixels as the model's weights expect them; without a model, grey in [-1, 1] at the
    size they have."""
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is not None:
        return tokenizer.preprocess(images)
    if not all(isinstance(image, np.ndarray) for image in images):
        raise DataError(
            "Pictures from files need a model with a tokenizer, which knows their size."
        )
    return torch.from_numpy(np.stack(images))[:, None].float() / 127.5 - 1


class PictureDataset:
    """Pictures that are already prepared and fit in memory."""

    def __init__(self, pixels: Tensor, labels: Tensor, changes: Augment) -> None:
        self.pixels, self.labels, self.changes = pixels, labels, changes

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        """Returns `pixels` (b c h w) and `labels` (b)."""
        rows = torch.as_tensor(indices)
        pixels = self.pixels[rows]
        if seeds is not None:
            pixels = augment(pixels, seeds, self.changes)
        return {"pixels": pixels, "labels": self.labels[rows]}


class LazyPictureDataset:
    """Pictures that are opened when they are asked for. Subclasses say how."""

    def __init__(self, labels: Tensor, changes: Augment, model: Any) -> None:
        self.labels, self.changes, self.model = labels, changes, model

    def __len__(self) -> int:
        return len(self.labels)

    def picture(self, index: int) -> Any:
        """Returns what the model's tokenizer can prepare: a path, a PIL image, an array."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """Returns what errors call a picture."""
        return f"picture {index}"

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        """Returns `pixels` (b c h w) and `labels` (b); raises DataError naming a picture that
        cannot be read."""
        pixels = torch.cat([self._one(index) for index in indices])
        if seeds is not None:
            pixels = augment(pixels, seeds, self.changes)
        return {"pixels": pixels, "labels": self.labels[torch.as_tensor(indices)]}

    def _one(self, index: int) -> Tensor:
        try:
            return prepare([self.picture(index)], self.model)
        except DataError as error:
            name = self.name(index)
            raise DataError(str(error) if name in str(error) else f"{name}: {error}") from None
