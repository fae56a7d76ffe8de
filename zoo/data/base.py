"""What a data set is. Two small interfaces; anything that has their methods will do.

A kind of `data` builds an object with

    labels                        names of the classes, [] when it has none
    split(name, model) -> Dataset "train" or "test", prepared for the model (its `tokenizer`
    knows sizes and means)

and a Dataset gives batches by index, so that the order is nobody's business but the loader's.
"""

# b samples

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Batch", "Data", "Dataset", "ItemDataset"]

Batch = dict[
    str, Any
]  # name -> tensor with b first (or anything else that an objective understands)


class Dataset(Protocol):
    """Samples by index."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        """Returns the samples of `indices` as tensors with b first.

        `seeds` (b) int64 is given in training: everything random about sample i is drawn from
        `seeds[i]` (`zoo.data.draw`) and from nothing else. None asks for the samples as they are.
        """
        ...


class Data(Protocol):
    """A data set with its splits."""

    labels: list[str]

    def split(self, name: str, model: Any = None) -> Dataset: ...


class ItemDataset:
    """The easy way to write a Dataset: `__len__` and `item`; `collate` stacks what `item`
    returns."""

    def __len__(self) -> int:
        raise NotImplementedError

    def item(self, index: int, seed: int | None = None) -> Batch:
        """Returns one sample; `seed` as in `Dataset.batch`."""
        raise NotImplementedError

    def collate(self, items: list[Batch]) -> Batch:
        """Returns the items as one batch: tensors and numbers are stacked, anything else becomes
        a list."""
        return {key: _stack([item[key] for item in items]) for key in items[0]}

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        """Returns `collate` of the items."""
        drawn = [None] * len(indices) if seeds is None else seeds.tolist()
        return self.collate([self.item(i, seed) for i, seed in zip(indices, drawn, strict=True)])


def _stack(values: list[Any]) -> Any:
    if isinstance(values[0], Tensor):
        return torch.stack(values)
    if isinstance(values[0], (bool, int, float)):
        return torch.tensor(values)
    return values
