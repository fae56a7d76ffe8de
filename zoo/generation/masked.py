"""Masked-iterative decoding: all tokens at once, the least certain ones again (MaskGIT, Muse).

Known tokens stay what they are, so inpainting, super-resolution and continuation are one mechanism.
"""

# b sequences, n tokens, v vocabulary

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.errors import UnknownName
from zoo.generation.loop import generator_of
from zoo.registry import setting
from zoo.registry.suggest import hint
from zoo.registry.typed import validate

__all__ = ["SAMPLERS", "MaskedOptions", "masked_decode", "masked_options", "masked_steps"]


@dataclass(kw_only=True)
class MaskedOptions:
    """How masked tokens are filled in."""

    steps: int = setting(8, "passes of the model", low=1)
    schedule: Literal["cosine", "linear", "square"] = setting(
        "cosine", "share that stays masked over time"
    )
    temperature: float = setting(1.0, "of the distribution that tokens are drawn from", low=0.0)
    anneal: bool = setting(False, "that temperature falls to 0 over the passes")
    top_k: int | None = setting(None, "only the k most probable tokens", low=1)
    top_share: float | None = setting(
        None, "only this share of the vocabulary, the most probable", above=0.0, high=1.0
    )
    begin: float = setting(
        0.0,
        "share of the passes that is taken as done: what is known is masked at random, as much as "
        "the schedule has masked by then, and the others draw it anew",
        low=0.0,
        high=1.0,
    )
    choice_temperature: float = setting(
        4.5, "noise on the confidence, annealed to 0; none gives dull samples", low=0.0
    )
    choice_noise: Literal["gumbel", "uniform"] = setting("gumbel", "which noise")
    choice_clock: Literal["after", "span"] = setting(
        "after",
        "noise times 1 - (s + 1) / steps at pass s, or (aMUSEd) 1 - s / (steps - 1)",
    )
    seed: int | None = setting(None, "the same seed draws the same; null draws anew")


# Three samplers are in use and differ; each is named after who made it known.
SAMPLERS: dict[str, dict[str, Any]] = {
    "maskgit": {},  # Chang et al. 2022, arXiv 2202.04200: noise on the confidence
    "amused": {"choice_temperature": 2.0, "choice_clock": "span", "steps": 12},
    # muse-maskgit-pytorch and phenaki-pytorch: the least probable again, tokens drawn ever colder
    "lucidrains": {"choice_temperature": 0.0, "anneal": True, "top_share": 0.1, "steps": 18},
    # Lezama et al. 2022, arXiv 2209.04439: another network says which tokens look wrong
    "token-critic": {"choice_temperature": 1.0, "choice_noise": "uniform", "steps": 18},
}


def masked_options(sampler: str = "maskgit", **given: Any) -> MaskedOptions:
    """Returns the options of a sampler by name, with others laid over them.

    Raises: UnknownName, ConfigError for an option that does not exist or cannot be.
    """
    if sampler not in SAMPLERS:
        known = ", ".join(SAMPLERS)
        raise UnknownName(f"Unknown sampler {sampler!r}.{hint(sampler, SAMPLERS, known)}")
    return validate(MaskedOptions, {**SAMPLERS[sampler], **given}, "")


def share_masked(schedule: str, time: float) -> float:
    """Returns the share of tokens still masked at `time` in 0..1. In single precision, as everyone
    counts: cos(60 degrees) is just below a half there."""
    if schedule == "cosine":
        return float(torch.cos(torch.tensor(time) * math.pi / 2))
    return 1 - time if schedule == "linear" else 1 - time**2


def masked_steps(
    logits: Callable[[Tensor, float], Tensor],
    tokens: Tensor,  # b n, `mask` where unknown
    mask: int,
    options: MaskedOptions,
    critic: Callable[[Tensor, float], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Yields the tokens (b n) after each pass; the last ones hold no mask.

    `logits(tokens, time)` gives the scores (b n v); it may guide, and never gives the mask itself.
    `critic(tokens, time)` says how well each token fits (b n), in place of its probability.
    """
    generator = generator_of(options.seed, tokens.device)
    unknown = (tokens == mask).sum(-1)  # b
    passes = max(int(options.steps * (1 - options.begin) + 1e-9), 1)
    first = options.steps - passes
    if first:
        share = share_masked(options.schedule, first / options.steps)
        uniform = torch.empty(tokens.shape, device=tokens.device).uniform_(generator=generator)
        tokens = torch.where(uniform < share, mask, tokens)
        unknown = torch.full_like(unknown, tokens.shape[-1])  # as if all had been drawn
    for step in range(first, options.steps):
        after = (step + 1) / options.steps
        scores = logits(tokens, step / options.steps).float()
        drawn, confidence = _draw(scores, options, step, generator)
        hidden = tokens == mask
        drawn = torch.where(hidden, drawn, tokens)
        if step == options.steps - 1:
            yield drawn
            return
        if critic is not None:
            confidence = critic(drawn, step / options.steps).float()
        span = step / (options.steps - 1)
        left = 1 - (after if options.choice_clock == "after" else span)
        if options.choice_temperature:
            noise = _noise(confidence, options, generator)
            confidence = confidence + options.choice_temperature * left * noise
        confidence = confidence.masked_fill(~hidden, math.inf)
        count = (unknown * share_masked(options.schedule, after)).floor().long()
        count = torch.minimum(count.clamp(min=1), (hidden.sum(-1) - 1).clamp(min=0))
        order = confidence.argsort(-1).argsort(-1)  # rank of each token, least certain first
        tokens = torch.where(order < count[:, None], mask, drawn)
        yield tokens


def _noise(like: Tensor, options: MaskedOptions, generator: torch.Generator | None) -> Tensor:
    uniform = torch.empty_like(like).uniform_(generator=generator)
    if options.choice_noise == "uniform":
        return uniform - 0.5
    return -(-uniform.clamp(min=1e-20).log()).clamp(min=1e-20).log()


def _draw(
    scores: Tensor, options: MaskedOptions, step: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Returns tokens drawn and the log-probability of each."""
    logs = scores.log_softmax(-1)
    keep = options.top_k
    if options.top_share is not None:
        keep = max(math.ceil(options.top_share * scores.shape[-1]), 1)
    if keep is not None and keep < scores.shape[-1]:
        least = scores.topk(keep, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < least, -math.inf)
    share = 1 - step / options.steps if options.anneal else 1.0
    if options.temperature == 0:
        drawn = scores.argmax(-1)
    else:
        probability = (scores / (options.temperature * share)).softmax(-1)
        noise = torch.empty_like(probability).exponential_(generator=generator)
        drawn = (probability / noise).argmax(-1)
    return drawn, logs.gather(-1, drawn[..., None])[..., 0]


def masked_decode(
    logits: Callable[[Tensor, float], Tensor],
    tokens: Tensor,
    mask: int,
    options: MaskedOptions,
    critic: Callable[[Tensor, float], Tensor] | None = None,
) -> Tensor:
    """Returns the tokens (b n) with every mask filled in."""
    *_, last = masked_steps(logits, tokens, mask, options, critic)
    return last
