"""Translation: teacher forcing in training, exact match in measuring."""

# b samples, m source tokens, n target tokens

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.base import Batch, Data
from zoo.errors import ConfigError
from zoo.generation.loop import decode
from zoo.generation.schema import options
from zoo.models.text.steps import Seq2SeqSteps
from zoo.training.distributed import unwrap
from zoo.training.text.common import TokenObjective
from zoo.training.text.schema import TranslationConfig

__all__ = ["Translation"]


class Translation(TokenObjective):
    """Batches hold `source`, `source_mask` (b m) and `target`, `target_mask` (b n), which ends
    in the
    end token."""

    config: TranslationConfig

    def __init__(self, config: TranslationConfig) -> None:
        super().__init__(config)
        self.smoothing = config.smoothing
        self.metric = "exact" if config.exact else "loss"

    def check(self, model: nn.Module, data: Data) -> None:
        """Raises ConfigError unless the model is an encoder-decoder with a start token."""
        plain = unwrap(model)
        if getattr(plain.config, "zoo_kind", None) != "seq2seq":
            raise ConfigError("objective: 'translation' trains seq2seq models.")
        self.start, self.end = plain.special("start"), plain.special("eos")
        if self.start is None or self.end is None:
            raise ConfigError("special: translation needs the tokens 'start' and 'eos'.")

    def prepare(self, batch: Batch, seeds: Tensor) -> tuple[dict[str, Any], Tensor, Tensor]:
        target = batch["target"]
        start = torch.full_like(target[:, :1], self.start)
        arguments = {
            "source": batch["source"],
            "target": torch.cat([start, target[:, :-1]], dim=1),
            "source_mask": batch["source_mask"],
        }
        return arguments, target, batch["target_mask"].bool()

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns the sums of `loss`, `accuracy` (tokens) and `exact` (samples)."""
        sums = super().measure(model, batch)
        if not self.config.exact:
            return sums
        target, mask = batch["target"], batch["target_mask"].bool()
        steps = Seq2SeqSteps(unwrap(model), batch["source"], batch["source_mask"])
        prompt = torch.full_like(target[:, :1], self.start)
        limit = options(max_new_tokens=target.shape[1] + 1)
        found = decode(steps, prompt, limit, [self.end], check_every=8)
        right = [
            tokens == row[real].tolist()
            for tokens, row, real in zip(found.tokens, target, mask, strict=True)
        ]
        exact = torch.tensor(right, device=batch["valid"].device) & batch["valid"]
        return {**sums, "exact": (exact.sum(), batch["valid"].sum())}
