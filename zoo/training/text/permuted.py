"""Permutation language modelling."""

# b samples, n tokens, p predicted places

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.data.base import Batch, Data
from zoo.data.draw import uniform
from zoo.errors import ConfigError
from zoo.training.distributed import unwrap
from zoo.training.text.common import TokenObjective, shuffled
from zoo.training.text.schema import PermutationConfig

__all__ = ["Permutation"]


class Permutation(TokenObjective):
    """Batches hold `tokens` (b n)."""

    config: PermutationConfig

    def check(self, model: nn.Module, data: Data) -> None:
        """Raises ConfigError unless the model has two streams."""
        if getattr(unwrap(model).config, "zoo_kind", None) != "permutation-lm":
            raise ConfigError("objective: 'permutation' trains permutation-lm models.")

    def prepare(self, batch: Batch, seeds: Tensor) -> tuple[dict[str, Any], Tensor, Tensor]:
        tokens = batch["tokens"]
        n = tokens.shape[1]
        rank = shuffled(uniform(seeds.to(tokens.device), n, 10))  # b n: place in the order
        count = max(round(n * self.config.predicted), 1)
        chosen = (rank >= n - count).nonzero()[:, 1].view(-1, count)  # b p
        # Place i may not see what is predicted at its own turn or later; the rest is open to all.
        hidden = (rank[:, :, None] <= rank[:, None, :]) & (rank >= n - count)[:, None, :]
        arguments = {"tokens": tokens, "order": hidden, "targets": F.one_hot(chosen, n).float()}
        return arguments, tokens.gather(1, chosen), torch.ones_like(chosen, dtype=torch.bool)
