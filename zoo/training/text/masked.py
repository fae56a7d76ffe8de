"""Masked-token prediction, with next-sentence prediction as BERT had it."""

# b samples, n tokens, v vocabulary

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.data.base import Batch, Data
from zoo.data.draw import uniform
from zoo.errors import ConfigError
from zoo.training.distributed import unwrap
from zoo.training.objective import Loss
from zoo.training.text.common import TokenObjective, shuffled
from zoo.training.text.schema import MaskedTokensConfig

__all__ = ["MaskedTokens", "word_starts"]


def word_starts(tokenizer: Any) -> Tensor:
    """Returns which tokens of a vocabulary begin a word (v): not `##…` in WordPiece; with a blank's
    sign in byte-level BPE and SentencePiece."""
    pieces = [tokenizer.id_to_token(i) for i in range(tokenizer.vocabulary)]
    signs = ("Ġ", "▁", "Ċ")
    if any(piece.startswith("##") for piece in pieces):
        return torch.tensor([not piece.startswith("##") for piece in pieces])
    return torch.tensor([piece.startswith(signs) or not piece[:1].isalpha() for piece in pieces])


class MaskedTokens(TokenObjective):
    """Batches hold `tokens` (b n) and perhaps `mask` (b n), true at real tokens."""

    config: MaskedTokensConfig

    def check(self, model: nn.Module, data: Data) -> None:
        """Raises ConfigError unless the model is an encoder that has a mask token."""
        plain = unwrap(model)
        config: Any = getattr(plain, "config", None)
        if getattr(config, "zoo_kind", None) != "masked-lm" or config.task != "fill":
            raise ConfigError("objective: 'masked-tokens' trains masked-lm models with task=fill.")
        mask = plain.special("mask")
        if mask is None:
            raise ConfigError("special.mask: nothing says which token hides another.")
        if self.config.next_sentence and not config.next_sentence:
            raise ConfigError("objective.next_sentence: the model has no such head; set it there.")
        self.mask, self.vocabulary = mask, config.vocabulary
        self.kept = torch.tensor(sorted(plain.tokenizer.special_ids), dtype=torch.long)
        self.starts = word_starts(plain.tokenizer) if self.config.whole_words else None

    def prepare(self, batch: Batch, seeds: Tensor) -> tuple[dict[str, Any], Tensor, Tensor]:
        tokens = batch["tokens"]
        b, n = tokens.shape
        drawn = uniform(seeds.to(tokens.device), 3 * n, 4).view(b, 3, n)
        allowed = ~torch.isin(tokens, self.kept)
        if "mask" in batch:
            allowed = allowed & batch["mask"].bool()
        if self.starts is not None:  # a word's pieces share the draw of its first one
            word = self.starts[tokens].long().cumsum(-1)
            word = word.clamp(max=n - 1)
            chosen = (drawn[:, 0] < self.config.rate).gather(-1, word) & allowed
        else:
            chosen = (drawn[:, 0] < self.config.rate) & allowed
        chosen[:, 0] |= ~chosen.any(-1) & allowed[:, 0]  # never a sample without any
        inputs = tokens.clone()
        hide = chosen & (drawn[:, 1] < self.config.masked)
        swap = chosen & ~hide & (drawn[:, 1] < self.config.masked + self.config.random)
        inputs[hide] = self.mask
        inputs[swap] = (drawn[:, 2] * self.vocabulary).long()[swap]
        arguments: dict[str, Any] = {"tokens": inputs}
        if "mask" in batch:
            arguments["mask"] = batch["mask"]
        if self.config.next_sentence:
            arguments["types"] = (torch.arange(n) >= n // 2).long().expand(b, -1)
        return arguments, tokens, chosen

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        if not self.config.next_sentence:
            return super().__call__(model, batch)
        batch, follows = self._paired(batch)
        arguments, targets, places = self.prepare(batch, batch["seeds"])
        output = model(**arguments)
        logits = output.logits[places].float()
        loss = F.cross_entropy(logits, targets[places])
        second = F.cross_entropy(output.next_sentence.float(), follows)
        right = (output.next_sentence.argmax(-1) == follows).float().mean()
        return Loss(loss + second, {"masked_loss": loss.detach(), "follows_accuracy": right})

    def _paired(self, batch: Batch) -> tuple[Batch, Tensor]:
        """Swaps the second half of about half of the samples for another sample's; returns the
        labels too (0: follows, 1: does not, as in BERT)."""
        tokens = batch["tokens"]
        order = shuffled(uniform(batch["seeds"], 1, 5)[:, 0])
        other = tokens.roll(1, 0)
        swap = order % 2 == 1
        half = tokens.shape[1] // 2
        mixed = tokens.clone()
        mixed[swap, half:] = other[swap, half:]
        return {**batch, "tokens": mixed}, swap.long()
