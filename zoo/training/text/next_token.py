"""Next-token prediction, and bits per byte as the honest measure of it."""

# b samples, n tokens, v vocabulary

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.base import Batch, Data
from zoo.data.draw import uniform
from zoo.data.loader import EvalLoader
from zoo.data.text.stdlib import ScoredWindows
from zoo.errors import ConfigError
from zoo.training.distributed import World, unwrap
from zoo.training.text.common import TokenObjective
from zoo.training.text.schema import NextTokenConfig

__all__ = ["NextToken", "bits_per_byte"]


class NextToken(TokenObjective):
    """Batches hold `tokens` (b n) and perhaps `mask` (b n)."""

    config: NextTokenConfig

    def __init__(self, config: NextTokenConfig) -> None:
        super().__init__(config)
        self.smoothing = config.smoothing

    def check(self, model: nn.Module, data: Data) -> None:
        """Raises ConfigError unless the model reads from left to right."""
        config = getattr(unwrap(model), "config", None)
        if getattr(config, "zoo_kind", None) != "causal-lm":
            raise ConfigError(
                "objective: 'next-token' trains causal-lm models; encoders take 'masked-tokens', "
                "encoder-decoders 'span-corruption' or 'translation'."
            )

    def prepare(self, batch: Batch, seeds: Tensor) -> tuple[dict[str, Any], Tensor, Tensor]:
        tokens = batch["tokens"]
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        places = torch.ones_like(targets, dtype=torch.bool)
        arguments: dict[str, Any] = {"tokens": inputs}
        if "mask" in batch:
            arguments["mask"] = batch["mask"][:, :-1]
            places = batch["mask"][:, 1:].bool()
        if "scored" in batch:
            places = places & batch["scored"][:, 1:]
        if self.config.prefix:
            share = uniform(seeds.to(tokens.device), 1, 3)[:, 0]
            prefix = 1 + (share * (inputs.shape[1] - 1)).long()  # b
            arguments["prefix"] = prefix
            # the last prefix token already predicts the first token after it
            places = places & (torch.arange(inputs.shape[1]) >= prefix[:, None] - 1)
        return arguments, targets, places

    def measure(self, model: nn.Module, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns also the sums of `bits_per_byte`, where the data knows the texts' bytes."""
        sums = super().measure(model, batch)
        if "bytes_per_token" in batch:
            nats, count = sums["loss"]
            size = count.double() * batch["bytes_per_token"][0].double()
            sums["bits_per_byte"] = (nats.double() / math.log(2), size)
        return sums

    def higher_is_better(self, name: str) -> bool:
        return name == "accuracy"


def bits_per_byte(
    model: Any, texts: list[str], length: int, context: int, batch: int = 16
) -> dict[str, float]:
    """Returns the bits that a model needs per UTF-8 byte of texts, every token counted once.

    Texts are joined by the end token, as in training, and the first one is predicted from it.
    Windows of `length` tokens overlap by `context` (see `ScoredWindows`).
    """
    windows = ScoredWindows(model.tokenizer, texts, length, context)
    objective = NextToken(NextTokenConfig())
    loader = EvalLoader(windows, batch=batch, workers=0)
    with torch.inference_mode():
        metrics = objective.evaluate(model, loader, World())
    return {**metrics, "tokens": len(windows.tokens) - 1, "bytes": windows.bytes}
