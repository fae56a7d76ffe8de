"""What the text objectives share: a loss over chosen places, and its sums for measuring."""

# b samples, n tokens, v vocabulary

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.data.base import Batch
from zoo.training.objective import Loss, Objective

__all__ = ["TokenObjective", "shuffled"]


class TokenObjective(Objective):
    """An objective whose items are predicted tokens. A kind says `prepare` alone: what goes into
    the model, what shall come out, and where."""

    smoothing = 0.0

    def prepare(self, batch: Batch, seeds: Tensor) -> tuple[dict[str, Any], Tensor, Tensor]:
        """Returns (arguments of the model, targets (b n), bool places (b n) that count)."""
        raise NotImplementedError

    def weight(self, batch: Batch) -> float:
        _, _, places = self.prepare(batch, batch["seeds"])
        return float(places.sum())

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        arguments, targets, places = self.prepare(batch, batch["seeds"])
        logits = self.logits(model(**arguments))[places].float()
        wanted = targets[places]
        loss = F.cross_entropy(logits, wanted, label_smoothing=self.smoothing)
        return Loss(loss, {"accuracy": (logits.argmax(-1) == wanted).float().mean()})

    def logits(self, output: Any) -> Tensor:
        """Returns the scores (b n v) that line up with the targets."""
        return output.logits

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns the sums of `loss` (nats per token) and `accuracy`, both over tokens."""
        seeds = torch.arange(len(batch["valid"])) * 7919 + 17  # the same corruption every time
        arguments, targets, places = self.prepare(batch, seeds)
        places = places & batch["valid"][:, None]
        logits = self.logits(model(**arguments))[places].float()
        wanted, count = targets[places], places.sum()
        return {
            "loss": (F.cross_entropy(logits, wanted, reduction="sum"), count),
            "accuracy": ((logits.argmax(-1) == wanted).sum(), count),
        }

    def higher_is_better(self, name: str) -> bool:
        return name != "loss"


def shuffled(scores: Tensor) -> Tensor:
    """Returns the rank of each number within its row: a random order, if they are random."""
    return scores.argsort(-1).argsort(-1)
