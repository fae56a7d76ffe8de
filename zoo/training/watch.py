"""What ends a run before its last step: signals, and numbers that stop being numbers."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from zoo.training.distributed import World

__all__ = ["Finite", "signals"]


class Finite:
    """Collects whether losses and gradients are finite, and looks only when somebody asks: looking
    at every step would make an accelerator wait."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seen: list[tuple[int, Tensor]] = []

    def add(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Notes a step's loss and gradient norm."""
        self.seen.append((step, torch.isfinite(loss) & torch.isfinite(norm)))

    def first_bad(self) -> int | None:
        """Returns the first step since the last look that any process saw something else in."""
        if not self.seen:
            return None
        bad = self.world.sum(1 - torch.stack([flag for _, flag in self.seen]).float().cpu())
        steps = [step for step, _ in self.seen]
        self.seen = []
        return steps[int(bad.nonzero()[0])] if bool(bad.any()) else None


@contextmanager
def signals() -> Iterator[list[int]]:
    """Yields a list of the SIGTERM and SIGINT that came; a second one ends the process as usual."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(number, old[number])

    old: dict[int, Any] = {}
    try:
        for number in (int(signal.SIGTERM), int(signal.SIGINT)):
            old[number] = signal.signal(number, note)
    except ValueError:  # not the main thread, which is the only one that may set handlers
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
