"""Masked-iterative decoding: all tokens at once, the least certain ones again (MaskGIT, Muse).

Known tokens stay what they are, so inpainting, super-resolution and continuation are one mechanism.
"""

# b sequences, n tokens, v vocabulary

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zoo.generation.loop import generator_of
from zoo.registry import setting

__all__ = ["MaskedOptions", "masked_decode", "masked_steps"]


@dataclass(kw_only=True)
class MaskedOptions:
    """How masked tokens are filled in."""

    steps: int = setting(8, "passes of the model", low=1)
    schedule: Literal["cosine", "linear", "square"] = setting(
        "cosine", "share that stays masked over time"
    )
    temperature: float = setting(1.0, "of the distribution that tokens are drawn from", low=0.0)
    top_k: int | None = setting(None, "only the k most probable tokens", low=1)
    choice_temperature: float = setting(
        4.5, "noise on the confidence, annealed to 0; none gives dull samples", low=0.0
    )
    seed: int | None = setting(None, "the same seed draws the same; null draws anew")


def share_masked(schedule: str, time: float) -> float:
    """Returns the share of tokens still masked at `time` in 0..1."""
    if schedule == "cosine":
        return math.cos(math.pi / 2 * time)
    return 1 - time if schedule == "linear" else 1 - time**2


def masked_steps(
    logits: Callable[[Tensor, float], Tensor],
    tokens: Tensor,  # b n, `mask` where unknown
    mask: int,
    options: MaskedOptions,
) -> Iterator[Tensor]:
    """Yields the tokens (b n) after each pass; the last ones hold no mask.

    `logits(tokens, time)` gives the scores (b n v); it may guide, and never gives the mask itself.
    """
    generator = generator_of(options.seed, tokens.device)
    known = tokens != mask
    unknown = (~known).sum(-1)  # b
    for step in range(options.steps):
        time = (step + 1) / options.steps
        scores = logits(tokens, step / options.steps).float()
        drawn, confidence = _draw(scores, options, generator)
        hidden = tokens == mask
        drawn = torch.where(hidden, drawn, tokens)
        if step == options.steps - 1:
            yield drawn
            return
        noise = -torch.empty_like(confidence).exponential_(generator=generator).log()  # Gumbel
        confidence = confidence + options.choice_temperature * (1 - time) * noise
        confidence = confidence.masked_fill(~hidden, math.inf)
        count = (unknown * share_masked(options.schedule, time)).floor().long()
        count = torch.minimum(count.clamp(min=1), (hidden.sum(-1) - 1).clamp(min=0))
        order = confidence.argsort(-1).argsort(-1)  # rank of each token, least certain first
        tokens = torch.where(order < count[:, None], mask, drawn)
        yield tokens


def _draw(
    scores: Tensor, options: MaskedOptions, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Returns tokens drawn and the log-probability of each."""
    if options.top_k is not None:
        least = scores.topk(options.top_k, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < least, float("-inf"))
    if options.temperature == 0:
        drawn = scores.argmax(-1)
    else:
        probability = (scores / options.temperature).softmax(-1)
        noise = torch.empty_like(probability).exponential_(generator=generator)
        drawn = (probability / noise).argmax(-1)
    logs = scores.log_softmax(-1)
    return drawn, logs.gather(-1, drawn[..., None])[..., 0]


def masked_decode(
    logits: Callable[[Tensor, float], Tensor], tokens: Tensor, mask: int, options: MaskedOptions
) -> Tensor:
    """Returns the tokens (b n) with every mask filled in."""
    *_, last = masked_steps(logits, tokens, mask, options)
    return last
