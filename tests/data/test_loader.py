"""Batches: the same samples for any number of processes, each once, errors where one looks."""

import threading

import pytest
import torch

from zoo.data.base import ItemDataset
from zoo.data.loader import EvalLoader, TrainLoader, order
from zoo.errors import DataError


class Numbers(ItemDataset):
    """Samples that are their own index, and note the seed that they were asked with."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def item(self, index, seed=None):
        return {"index": index, "seed": -1 if seed is None else seed % 1000, "name": f"n{index}"}


def test_order_is_endless_and_every_epoch_has_everything_in_another_order():
    positions = torch.arange(30)
    indices = order(positions, 10, seed=1)
    epochs = [indices[i : i + 10] for i in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert order(torch.tensor([17, 3]), 10, seed=1) == [indices[17], indices[3]]
    assert order(positions, 10, seed=2) != indices


def step_of(world: int, accumulate: int, step: int) -> list[tuple[int, int]]:
    """All (index, seed) of a step, in the order of the global batch."""
    found = []
    for micro in range(accumulate):
        for rank in range(world):
            loader = TrainLoader(
                Numbers(50), batch=24, accumulate=accumulate, rank=rank, world=world, seed=5
            )
            batch = loader.step(step)[micro]
            assert len(batch["seeds"]) == 24 // (world * accumulate)
            found += zip(batch["index"].tolist(), batch["seed"].tolist(), strict=True)
    return found


@pytest.mark.parametrize(("world", "accumulate"), [(1, 2), (2, 1), (2, 3), (4, 1)])
def test_a_step_has_the_same_samples_however_it_is_divided(world, accumulate):
    for step in (0, 1, 7):  # 50 samples are not a whole number of batches
        assert step_of(world, accumulate, step) == step_of(1, 1, step)


def test_threads_make_the_same_batches_in_the_same_order():
    alone = TrainLoader(Numbers(50), batch=8, seed=1, workers=0)
    many = TrainLoader(Numbers(50), batch=8, seed=1, workers=3, prefetch=5)
    plain = [(s, b[0]["index"].tolist()) for s, b in alone.steps(3, 20)]
    assert plain == [(s, b[0]["index"].tolist()) for s, b in many.steps(3, 20)]
    assert [s for s, _ in plain] == list(range(3, 20))


def test_work_ahead_is_limited_and_stops_with_the_reader():
    made: list[int] = []
    lock = threading.Lock()

    class Counting(Numbers):
        def batch(self, indices, seeds=None):
            with lock:
                made.append(len(indices))
            return super().batch(indices, seeds)

    loader = TrainLoader(Counting(50), batch=4, workers=1, prefetch=2)
    steps = loader.steps(0, 1000)
    for _ in range(5):
        next(steps)
    steps.close()
    assert len(made) <= 5 + 3 + 1


def test_an_error_in_a_thread_is_raised_to_the_reader():
    class Broken(Numbers):
        def item(self, index, seed=None):
            raise DataError(f"sample {index} is broken.")

    with pytest.raises(DataError, match="is broken"):
        next(TrainLoader(Broken(5), batch=2).steps(0, 3))


@pytest.mark.parametrize(
    ("length", "world", "batch"), [(10, 1, 4), (11, 2, 3), (3, 2, 8), (5, 4, 1)]
)
def test_evaluation_sees_every_sample_once(length, world, batch):
    loaders = [EvalLoader(Numbers(length), batch=batch, rank=r, world=world) for r in range(world)]
    seen, counts = [], set()
    for loader in loaders:
        batches = list(loader)
        counts.add(len(batches))
        assert len(batches) == len(loader)
        for one in batches:
            assert (one["seed"] == -1).all() and "seeds" not in one
            seen += one["index"][one["valid"]].tolist()
    assert sorted(seen) == list(range(length))
    assert len(counts) == 1  # sharded models compute together or not at all


def test_what_cannot_be_stacked_is_a_list():
    assert Numbers(5).batch([3, 1])["name"] == ["n3", "n1"]


@pytest.mark.parametrize(("world", "accumulate"), [(3, 1), (1, 5), (2, 5)])
def test_a_batch_that_does_not_divide_is_refused(world, accumulate):
    with pytest.raises(DataError, match=f"do not divide into {world} processes x {accumulate}"):
        TrainLoader(Numbers(50), batch=16, world=world, accumulate=accumulate)


def test_an_empty_data_set_is_refused():
    with pytest.raises(DataError, match="no samples to train on"):
        TrainLoader(Numbers(0), batch=16)
