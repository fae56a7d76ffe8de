"""What the speech objectives share: batches of features and labels, error rates of what is
decoded."""

# b batch, t frames, m features, n tokens of sound, u labels, v labels in the vocabulary

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.data.base import Batch, Data
from zoo.errors import ConfigError
from zoo.training.distributed import unwrap
from zoo.training.objective import Objective
from zoo.training.speech.normalizer import normalizer

__all__ = ["SpeechObjective", "ctc_losses", "edits", "per_label"]


def edits(said: Sequence, heard: Sequence) -> int:
    """Returns the fewest insertions, deletions and substitutions from one sequence to another."""
    from torchaudio.functional import edit_distance

    return edit_distance(list(said), list(heard))


def per_label(losses: Tensor, lengths: Tensor, batch: Batch) -> Tensor:  # b -> b
    """Returns losses of utterances per label; where nothing is said, per token of sound."""
    labels = batch["target_lengths"]
    return losses / torch.where(labels > 0, labels, lengths).clamp(min=1)


def ctc_losses(logits: Tensor, lengths: Tensor, batch: Batch, blank: int) -> Tensor:  # b n v -> b
    """Returns the CTC loss of each utterance, per label; 0 (and no gradient) for one whose labels
    do not fit into its sound."""
    losses = F.ctc_loss(
        logits.float().log_softmax(-1).transpose(0, 1),
        batch["targets"],
        lengths,
        batch["target_lengths"],
        blank=blank,
        reduction="none",
        zero_infinity=True,
    )
    return per_label(losses, lengths, batch)


class SpeechObjective(Objective):
    """Batches hold `features` (b t m), `lengths` (b), `targets` (b u), `target_lengths` (b) and
    `texts`. Numbers: `loss`, `wer` and `cer`, which are edits over words and over characters."""

    metric = "wer"
    kind: str

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.plain = normalizer(config.normalizer)

    def check(self, model: nn.Module, data: Data) -> None:
        """Raises ConfigError for a model without the head that the loss needs."""
        plain = unwrap(model)
        kind = getattr(plain.config, "zoo_kind", None)
        if kind != self.kind:
            raise ConfigError(f"objective: {self.config.zoo_kind!r} trains {self.kind} models.")
        self.blank = plain.config.blank
        if len(plain.tokenizer) > plain.config.vocabulary:
            raise ConfigError(
                f"model.vocabulary: {plain.config.vocabulary} labels do not hold the tokenizer's "
                f"{len(plain.tokenizer)}."
            )

    def weight(self, batch: Batch) -> float:
        """Returns the number of utterances, of which one sample of the data may hold several."""
        return float(len(batch["lengths"]))

    def decode(self, model: Any, output: Any) -> list[list[int]]:
        """Returns the labels of each utterance, greedily."""
        raise NotImplementedError

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
        """Returns (loss of each utterance per label, what the model gave)."""
        raise NotImplementedError

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        losses, output = self.losses(model, batch)
        valid = batch["valid"]
        plain = unwrap(model)
        counts = torch.zeros(4, dtype=torch.float64)  # edits and words, edits and characters
        for row, labels in enumerate(self.decode(plain, output)):
            if not valid[row]:
                continue
            said = self.plain(batch["texts"][row])
            heard = self.plain(plain.tokenizer.decode(labels, skip_special=True))
            words = said.split()
            counts += torch.tensor(
                [edits(words, heard.split()), len(words), edits(said, heard), len(said)]
            )
        return {
            "loss": ((losses * valid).sum(), valid.sum()),
            "wer": (counts[0], counts[1]),
            "cer": (counts[2], counts[3]),
        }
