"""Connectionist temporal classification: a label or nothing for every token of sound."""

# b batch, t frames, m features, n tokens of sound, v labels

from __future__ import annotations

from torch import Tensor

from zoo.models.speech.encoder import SpeechEncoder, SpeechOutput
from zoo.models.speech.schema import CTCConfig
from zoo.models.speech.verbs import CTCVerbs
from zoo.nn.attention import Record
from zoo.nn.linear import Linear

__all__ = ["CTC"]


class CTC(SpeechEncoder, CTCVerbs):
    """Features in, scores of labels for every token of sound out."""

    config: CTCConfig

    def __init__(self, config: CTCConfig) -> None:
        super().__init__(config)
        self.head = Linear(config.backbone.width, config.vocabulary, std=config.backbone.init_std)

    def forward(
        self,
        features: Tensor,  # b t m
        lengths: Tensor | None = None,  # b
        *,
        record: Record | None = None,
    ) -> SpeechOutput:
        """Raises DataError for features of another width."""
        hidden, lengths = self.encode(features, lengths, record)
        return SpeechOutput(self.head(hidden), lengths, hidden)
