"""Next-token prediction, and bits per byte as the honest measure of it."""

# b samples, n tokens, v vocabulary

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.base import Batch, Data
from zoo.data.draw import uniform
from zoo.errors import ConfigError
from zoo.training.distributed import unwrap
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
        if self.config.prefix:
            share = uniform(seeds.to(tokens.device), 1, 3)[:, 0]
            prefix = 1 + (share * (inputs.shape[1] - 1)).long()  # b
            arguments["prefix"] = prefix
            # the last prefix token already predicts the first token after it
            places = places & (torch.arange(inputs.shape[1]) >= prefix[:, None] - 1)
        return arguments, targets, places


@torch.inference_mode()
def bits_per_byte(
    model: Any, texts: list[str], length: int, context: int, batch: int = 16
) -> dict[str, float]:
    """Returns the bits that a model needs per UTF-8 byte of texts, every token counted once.

    Texts are joined by the end token, as in training, and the first one is predicted from it.
    Windows of `length` tokens overlap by `context`: every token but the first ones is predicted
    from at least so many before it.
    """
    tokenizer = model.tokenizer
    end = tokenizer.eos_id
    row = [end]
    for ids in tokenizer.encode(texts, special=False, control=False):
        row += [*ids, end]
    tokens = torch.tensor(row)
    fresh = length - context
    starts = list(range(0, len(row) - 1, fresh))
    nats, count = 0.0, 0
    for first in range(0, len(starts), batch):
        for start in _equal(starts[first : first + batch], len(row), length):
            places = torch.tensor(start)[:, None] + torch.arange(
                min(length, len(row) - 1 - start[0])
            )
            logs = model(tokens[places]).logits.float().log_softmax(-1)
            picked = -logs.gather(-1, tokens[places + 1][..., None])[..., 0]
            for index, begin in enumerate(start):
                new = picked[index] if begin == 0 else picked[index, context:]
                nats += float(new.double().sum())
                count += len(new)
    size = sum(len(text.encode()) for text in texts)
    return {"bits_per_byte": nats / math.log(2) / size, "tokens": count, "bytes": size}


def _equal(starts: list[int], total: int, length: int) -> list[list[int]]:
    """Returns the starts of whole windows together, and shorter last ones each alone."""
    whole = [s for s in starts if s + length <= total - 1]
    return ([whole] if whole else []) + [[s] for s in starts if s + length > total - 1]
