"""What a model is trained for. The loop calls these methods and knows nothing else of a modality.

To add an objective: a schema in a `schema.py` (`@kind("objective", "my-kind",
builds="module:Class")`), a class like `Objective`, and a node `conf/objective/my-kind.yaml`. The
class is built with its config and called as

    objective.check(model, data)        before anything runs: ConfigError for what cannot work
    together
    objective.begin(model, step, steps) before each step: what changes over a training
    objective.weight(batch)             how many items (samples, tokens) the loss of this batch
    is a mean over
    objective(model, batch) -> Loss     the mean loss of a training batch, and numbers for the log
    objective.measure(model, batch)     of a held-out batch: name -> (sum, count); entries with
    `valid` false left out
    objective.evaluate(model, batches, world)   all of them: name -> number; override it for what
    is no mean
    objective.opponent                  a module that learns against the model, by `Loss.opponent`;
    made in `check`, trained by a second optimiser like the first and kept in checkpoints
    objective.pictures()                what the last evaluation can show: name -> PIL image
    objective.metric, higher_is_better(name)    which number says what weights are best, and in
    which direction

A training batch holds `seeds` (b): whatever is random about sample i is drawn from `seeds[i]` with
`zoo.data.draw`, so that it does not depend on how a step is divided among processes. Call the model
as `model(...)` only: gradients are added up in that call, and what hangs on the model's other
methods is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.base import Batch, Data
from zoo.training.distributed import World

__all__ = ["Loss", "Objective"]


@dataclass
class Loss:
    """A differentiable scalar, what else to log (scalars, means over the batch), and the scalar
    that the objective's opponent learns by, where it has one."""

    value: Tensor
    scalars: dict[str, Tensor] = field(default_factory=dict)
    opponent: Tensor | None = None


class Objective:
    """The base: a loss that is a mean over samples, metrics that are means over samples."""

    metric = "loss"  # which measured number says what weights are best
    opponent: nn.Module | None = None

    def __init__(self, config: Any) -> None:
        self.config = config

    def check(self, model: nn.Module, data: Data) -> None:
        """Raises ConfigError when the model cannot be trained for this on that data."""

    def begin(self, model: nn.Module, step: int, steps: int) -> None:
        """Sets what changes over a training, before step `step` of `steps`, counted from 0. It must
        depend on nothing else, so that a resumed run goes on as it would have."""

    def weight(self, batch: Batch) -> float:
        """Returns what the loss is a mean over; a step's loss is the mean over all items of all
        its batches."""
        return float(len(batch["seeds"]))

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        raise NotImplementedError

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns name -> (sum, count) of a held-out batch."""
        raise NotImplementedError

    def higher_is_better(self, name: str) -> bool:
        """Returns whether more of a measured number is better."""
        return False

    def pictures(self) -> dict[str, Any]:
        """Returns name -> PIL image of the last measurement, for a person to look at while it
        trains; they go to RUN/samples."""
        return {}

    def evaluate(
        self, model: nn.Module, batches: Iterable[Batch], world: World
    ) -> dict[str, float]:
        """Returns name -> mean over all batches of all processes; the model is in eval mode,
        gradients are off."""
        totals: dict[str, Tensor] = {}
        for batch in batches:
            for name, (total, count) in self.measure(model, batch).items():
                pair = torch.stack([total.double().cpu(), count.double().cpu()])
                totals[name] = totals[name] + pair if name in totals else pair
        means = {}
        for name in totals:  # every process has the same names, in the same order
            total, count = world.sum(totals[name]).tolist()
            means[name] = total / count if count else float("nan")
        return means
