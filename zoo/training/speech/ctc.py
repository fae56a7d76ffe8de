"""Training with connectionist temporal classification."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.base import Batch
from zoo.models.speech.ctc_search import ctc_greedy
from zoo.training.objective import Loss
from zoo.training.speech.common import SpeechObjective, ctc_losses

__all__ = ["CTCObjective"]


class CTCObjective(SpeechObjective):
    """The loss of a batch is the mean over utterances of their loss per label. `blank` in the log
    is the share of places whose best label is the blank: a model that says nothing has 1."""

    kind = "ctc"

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        losses, output = self.losses(model, batch)
        with torch.no_grad():
            best = output.logits.argmax(-1)
            real = torch.arange(best.shape[1], device=best.device) < output.lengths[:, None]
            scalars = {
                "blank": ((best == self.blank) & real).sum() / real.sum().clamp(min=1),
                "skipped": (losses == 0).float().mean(),  # labels that do not fit into the sound
            }
        return Loss(losses.mean(), scalars)

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
        output = model(batch["features"], batch["lengths"])
        return ctc_losses(output.logits, output.lengths, batch, self.blank), output

    def decode(self, model: Any, output: Any) -> list[list[int]]:
        rows = zip(output.logits.float().log_softmax(-1), output.lengths.tolist(), strict=True)
        return [
            [label.index for label in ctc_greedy(row[:length], self.blank)] for row, length in rows
        ]
