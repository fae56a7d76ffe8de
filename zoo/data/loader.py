"""From a data set to the batches of a step: which samples is a function of (seed, step), and
nothing else.

The training data is one endless sequence: epoch after epoch, each in an order of its own. Step s of
a run takes positions [s B, (s + 1) B) of it, whatever the number of processes, so a run that is
resumed, or moved to more machines, goes on with exactly the samples that it had not seen.
"""

# B global batch, b micro batch, W processes, A micro batches a step and process: B = W A b

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from zoo.data.base import Batch, Dataset
from zoo.data.draw import fold, permute, seeds_of
from zoo.errors import DataError

__all__ = ["EvalLoader", "TrainLoader", "order"]

T = TypeVar("T")


def order(positions: Tensor, length: int, seed: int) -> list[int]:  # b
    """Returns the indices that stand at `positions` of the endless sequence over a data set of
    `length` samples."""
    epochs = positions // length
    indices = positions % length
    for epoch in epochs.unique().tolist():
        inside = epochs == epoch
        indices[inside] = permute(indices[inside], length, fold(seed, epoch))
    return indices.tolist()


class TrainLoader:
    """The micro batches of any step, for one of W processes, made ahead of time by threads."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch: int,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        workers: int = 1,
        prefetch: int = 2,
    ) -> None:
        if batch % (world * accumulate):
            raise DataError(
                f"trainer.batch: {batch} samples a step do not divide into {world} processes x "
                f"{accumulate} micro batches; choose a batch that does."
            )
        if len(dataset) == 0:
            raise DataError("The data set has no samples to train on.")
        self.dataset, self.batch, self.accumulate = dataset, batch, accumulate
        self.rank, self.world, self.seed = rank, world, seed
        self.workers, self.prefetch = workers, prefetch

    def step(self, step: int) -> list[Batch]:
        """Returns this process's micro batches of a step; each also holds its samples' `seeds`
        (b)."""
        size = self.batch // (self.world * self.accumulate)
        batches = []
        for micro in range(self.accumulate):
            start = step * self.batch + (micro * self.world + self.rank) * size
            positions = torch.arange(start, start + size)
            seeds = seeds_of(self.seed, positions)
            batch = self.dataset.batch(order(positions, len(self.dataset), self.seed), seeds)
            batches.append({**batch, "seeds": seeds})
        return batches

    def steps(self, first: int, last: int) -> Iterator[tuple[int, list[Batch]]]:
        """Yields (step, micro batches) for first <= step < last; an error in a thread is raised
        here."""
        yield from _ahead(self.step, range(first, last), self.workers, self.prefetch)


class EvalLoader:
    """One pass over a data set in its own order, each sample once, shared among W processes.

    Every process yields the same number of batches (sharded models compute together or not at all):
    one that has run out of samples yields a first sample again with `valid` false. `valid` (b) is
    in every batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 1,
        prefetch: int = 2,
    ) -> None:
        self.dataset, self.batch, self.rank, self.world = dataset, batch, rank, world
        self.workers, self.prefetch = workers, prefetch

    def __len__(self) -> int:
        share = -(-len(self.dataset) // self.world)
        return -(-share // self.batch)

    def __iter__(self) -> Iterator[Batch]:
        for _, batch in _ahead(self._batch, range(len(self)), self.workers, self.prefetch):
            yield batch

    def _batch(self, number: int) -> Batch:
        mine = range(self.rank, len(self.dataset), self.world)
        indices = list(mine[number * self.batch : (number + 1) * self.batch])
        valid = torch.ones(max(len(indices), 1), dtype=torch.bool)
        if not indices:
            indices, valid = [0], torch.zeros(1, dtype=torch.bool)
        return {**self.dataset.batch(indices), "valid": valid}


def _ahead(
    make: Callable[[int], T], numbers: range, workers: int, prefetch: int
) -> Iterator[tuple[int, T]]:
    """Yields (number, make(number)) in order, with threads working on the next ones meanwhile."""
    if workers == 0:
        for number in numbers:
            yield number, make(number)
        return
    pending: collections.deque[tuple[int, Any]] = collections.deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="zoo-data")
    try:
        for number in numbers:
            pending.append((number, pool.submit(make, number)))
            if len(pending) > max(prefetch, workers):
                done, future = pending.popleft()
                yield done, future.result()
        while pending:
            done, future = pending.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
