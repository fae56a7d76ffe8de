"""What loaded text encoders do with strings: fill, embed, classify, answer."""

# b texts, n tokens, d width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ConfigError, DataError
from zoo.models.predictions import most_probable
from zoo.models.text.answering import Span, find_answer
from zoo.models.text.verbs import ReadsText, listed, none_empty

__all__ = ["Filling", "MaskedVerbs"]


@dataclass(frozen=True)
class Filling:
    """One way to fill a gap."""

    token: str
    probability: float
    text: str

    def __str__(self) -> str:
        return f"{self.text} ({self.probability:.1%})"


class MaskedVerbs(ReadsText):
    """Verbs of text encoders."""

    @torch.inference_mode()
    def fill(self, text: str, top: int = 5) -> list[Filling]:
        """Returns the `top` tokens for the one masked place of a text, most probable first."""
        if self.config.task != "fill":
            raise ConfigError(f"This model's head is '{self.config.task}', not 'fill'.")
        mask = self.special("mask")
        tokens, real = self.tokenizer([text])
        places = tokens[0].eq(-1 if mask is None else mask).nonzero().flatten().tolist()
        if mask is None or len(places) != 1:
            name = "" if mask is None else f" {self.tokenizer.id_to_token(mask)}"
            raise DataError(f"The text needs exactly one mask{name}, it has {len(places)}.")
        if not 1 <= top <= self.config.vocabulary:
            raise ConfigError(f"top: from 1 to the {self.config.vocabulary} tokens, got {top}.")
        scores = self(tokens.to(self.device), real.to(self.device)).logits[0, places[0]]  # type: ignore[operator]
        values, ids = scores.float().softmax(-1).topk(top)
        found = []
        for probability, token in zip(values.tolist(), ids.tolist(), strict=True):
            filled = tokens[0].tolist()
            filled[places[0]] = token
            found.append(
                Filling(
                    self.tokenizer.id_to_token(token),
                    probability,
                    self.tokenizer.decode(filled, skip_special=True),
                )
            )
        return found

    @torch.inference_mode()
    def embed(self, text: str | Sequence[str], batch_size: int = 32) -> Tensor:
        """Returns one vector of a text (d), or one per text of a list (b d)."""
        texts, several = listed(text)
        limit = self.config.backbone.length
        rows = []
        for start in range(0, len(texts), batch_size):
            tokens, mask = self.tokenizer(texts[start : start + batch_size], length=limit)
            none_empty(mask)
            rows.append(self.sentence_vectors(tokens.to(self.device), mask.to(self.device)))  # type: ignore[attr-defined]
        if not rows:
            return torch.empty(0, self.config.backbone.width)
        vectors = torch.cat(rows).float().cpu()
        return vectors if several else vectors[0]

    def answer(self, text: str, question: str, longest: int = 30) -> Span:
        """Returns the part of a text that answers a question, of at most `longest` tokens."""
        if self.config.task != "span":
            raise ConfigError(f"This model's head is '{self.config.task}', not 'span'.")
        return find_answer(self, text, question, longest)

    @torch.inference_mode()
    def classify(self, text: str | Sequence[str], top: int = 5, batch_size: int = 32) -> Any:
        """Returns the `top` most probable classes, best first: a list of Prediction, or a list of
        such lists. What exceeds the model's length is cut off."""
        config = self.config
        if config.task != "classify":
            raise ConfigError(f"This model's head is '{config.task}', not 'classify'.")
        texts, several = listed(text)
        labels = config.labels or [str(i) for i in range(config.classes)]
        found: list[Any] = []
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            tokens, mask = self.tokenizer(batch, length=config.backbone.length)
            none_empty(mask)
            scores = self(tokens.to(self.device), mask.to(self.device)).logits  # type: ignore[operator]
            found += most_probable(scores, labels, top)
        return found if several else found[0]
