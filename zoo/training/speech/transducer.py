"""Training a transducer with the loss over all its alignments."""

# b batch, n tokens of sound, u labels, v labels in the vocabulary

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from zoo.data.base import Batch, Data
from zoo.errors import ConfigError
from zoo.models.speech.transducer_search import transducer_greedy
from zoo.training.distributed import unwrap
from zoo.training.objective import Loss
from zoo.training.speech.common import SpeechObjective, ctc_losses, per_label
from zoo.training.speech.durations import duration_losses

__all__ = ["TransducerObjective"]


class TransducerObjective(SpeechObjective):
    """torchaudio's RNN-T loss, per label, or the one of durations for a model that has them; with
    `ctc` a share of it is a CTC loss on the second head, which finds the alignment sooner."""

    kind = "transducer"

    def check(self, model: nn.Module, data: Data) -> None:
        super().check(model, data)
        config = unwrap(model).config
        self.durations = config.durations
        if self.config.ctc and not config.ctc:
            raise ConfigError("objective.ctc: needs a second head; set model.ctc=true.")

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        losses, output = self.losses(model, batch)
        loss, share = losses.mean(), self.config.ctc
        if not share:
            return Loss(loss)
        other = ctc_losses(output.ctc_logits, output.lengths, batch, self.blank).mean()
        scalars = {"transducer": loss.detach(), "ctc": other.detach()}
        return Loss((1 - share) * loss + share * other, scalars)

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
        output = model(batch["features"], batch["lengths"], batch["targets"])
        n = int(output.lengths.max())  # which torchaudio's wants to be the size
        given = (
            output.logits[:, :n].float().contiguous(),
            batch["targets"].int(),
            output.lengths.int(),
            batch["target_lengths"].int(),
            self.blank,
        )
        if self.durations:
            losses = duration_losses(*given, self.durations, self.config.sigma).float()
        else:
            from torchaudio.functional import rnnt_loss

            losses = rnnt_loss(*given, reduction="none")
        return per_label(losses, output.lengths, batch), output

    def decode(self, model: Any, output: Any) -> list[list[int]]:
        rows = transducer_greedy(model, model.project(output.hidden), output.lengths)
        return [[label.index for label in row] for row in rows]
