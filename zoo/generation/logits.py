"""From scores to a choice: penalties, filters, sampling. Pure functions on (b v)."""

# b sequences, n tokens so far, v vocabulary

from __future__ import annotations

import torch
from torch import Tensor

from zoo.generation.schema import DecodingOptions
from zoo.nn import native

__all__ = ["choose", "filtered", "guided", "likeliest", "penalised", "probabilities"]

NEVER = float("-inf")


def likeliest(scores: Tensor) -> Tensor:
    """Returns the token with the largest score of each row (b); the first of several."""
    if native.reads(scores):
        return native.largest(scores)
    return scores.float().max(-1).indices  # a third of argmax's time, a twelfth of bf16's


def penalised(scores: Tensor, tokens: Tensor, penalty: float) -> Tensor:
    """Divides the scores of tokens already there by `penalty` (multiplies negative ones): Keskar et
    al. 2019, arXiv 1909.05858, section 4.1."""
    if penalty == 1.0:
        return scores
    there = scores.gather(-1, tokens)
    there = torch.where(there < 0, there * penalty, there / penalty)
    return scores.scatter(-1, tokens, there)


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: away from the unconditional scores by `scale` (1 changes
    nothing)."""
    return unconditional + scale * (conditional - unconditional)


def filtered(scores: Tensor, options: DecodingOptions) -> Tensor:
    """Returns scores over the temperature with what top-k, top-p, min-p and typical leave out at
    -inf; filters apply in that order, each to what the one before left."""
    scores = scores / options.temperature
    if options.top_k is not None and options.top_k < scores.shape[-1]:
        least = scores.topk(options.top_k, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < least, NEVER)
    if options.top_p is not None and options.top_p < 1:
        scores = _most_probable(scores, scores, options.top_p)
    if options.min_p:
        probability = scores.softmax(-1)
        least = options.min_p * probability.amax(-1, keepdim=True)
        scores = scores.masked_fill(probability < least, NEVER)
    if options.typical is not None and options.typical < 1:
        logs = scores.log_softmax(-1)
        entropy = -(logs.exp() * logs).nansum(-1, keepdim=True)
        nearness = -(-logs - entropy).abs()
        scores = _most_probable(
            scores, nearness.masked_fill(scores == NEVER, NEVER), options.typical
        )
    return scores


def _most_probable(scores: Tensor, order: Tensor, mass: float) -> Tensor:
    """Keeps the first tokens in descending `order` whose probabilities reach `mass`."""
    ranked = order.argsort(dim=-1, descending=True)
    probability = scores.softmax(-1).gather(-1, ranked)
    before = probability.cumsum(-1) - probability
    drop = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, ranked, before >= mass)
    return scores.masked_fill(drop, NEVER)


def probabilities(scores: Tensor, options: DecodingOptions) -> Tensor:
    """Returns the distribution that `choose` draws from; all on one token when greedy."""
    if options.temperature == 0:
        best = scores.argmax(-1, keepdim=True)
        return torch.zeros_like(scores).scatter(-1, best, 1.0)
    return filtered(scores.float(), options).softmax(-1)


def choose(scores: Tensor, options: DecodingOptions, generator: torch.Generator | None) -> Tensor:
    """Returns one token per row (b): the best one, or one drawn.

    Drawing divides by exponential noise and takes the maximum, which needs no copy to the host.
    """
    if options.temperature == 0:
        return likeliest(scores)
    probability = probabilities(scores, options)
    noise = torch.empty_like(probability).exponential_(1, generator=generator)
    return (probability / noise).argmax(-1)
