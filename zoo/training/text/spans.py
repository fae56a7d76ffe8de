"""Span corruption and UL2's mixture of denoisers, for encoder-decoders."""

# b samples, n tokens, m source tokens, k target tokens

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.base import Batch, Data
from zoo.data.draw import uniform
from zoo.errors import ConfigError
from zoo.training.distributed import unwrap
from zoo.training.text.common import TokenObjective
from zoo.training.text.schema import MixtureOfDenoisersConfig, SpanCorruptionConfig

__all__ = ["MixtureOfDenoisers", "SpanCorruption", "corrupt", "spans"]


def spans(n: int, rate: float, length: float, seed: Tensor) -> list[tuple[int, int]]:
    """Returns the [start, end) of the spans of one text of n tokens: about rate * n tokens, cut
    into spans of about `length`, at random places, never touching."""
    hidden = min(max(round(n * rate), 1), n - 1)
    count = max(round(hidden / length), 1)
    count = min(count, n - hidden)  # each span needs a token before it
    inner = _parts(hidden, count, seed, 6)
    outer = _parts(n - hidden, count, seed, 7)
    found, place = [], 0
    for kept, gone in zip(outer, inner, strict=True):
        place += kept
        found.append((place, place + gone))
        place += gone
    return found


def _parts(total: int, count: int, seed: Tensor, stream: int) -> list[int]:
    """Returns `count` positive whole numbers that sum to `total`, every way equally likely."""
    cuts = uniform(seed.view(1), total - 1, stream)[0].argsort()[: count - 1].sort().values + 1
    edges = [0, *cuts.tolist(), total]
    return [b - a for a, b in pairwise(edges)]


def corrupt(
    tokens: list[int], found: list[tuple[int, int]], sentinels: list[int], end: int
) -> tuple[list[int], list[int]]:
    """Returns (source with a sentinel for each span, target with each sentinel and its span)."""
    source: list[int] = []
    target: list[int] = []
    place = 0
    for sentinel, (start, stop) in zip(sentinels, found, strict=False):
        source += [*tokens[place:start], sentinel]
        target += [sentinel, *tokens[start:stop]]
        place = stop
    return [*source, *tokens[place:], end], [*target, end]


class SpanCorruption(TokenObjective):
    """Batches hold `tokens` (b n)."""

    config: Any

    def check(self, model: nn.Module, data: Data) -> None:
        """Raises ConfigError unless the model is an encoder-decoder that knows its tokens."""
        plain = unwrap(model)
        config: Any = getattr(plain, "config", None)
        if getattr(config, "zoo_kind", None) != "seq2seq":
            raise ConfigError(f"objective: '{self.config.zoo_kind}' trains seq2seq models.")
        for role in ("start", "eos", "pad"):
            if plain.special(role) is None:
                raise ConfigError(f"special.{role}: the objective needs this token.")
        self.start, self.end, self.pad = (plain.special(r) for r in ("start", "eos", "pad"))
        special = {plain.tokenizer.id_to_token(i): i for i in sorted(plain.tokenizer.special_ids)}
        named = [special.get(f"<extra_id_{n}>") for n in range(self.config.sentinels)]
        self.sentinels = [number for number in named if number is not None]
        if not self.sentinels:  # a vocabulary without such tokens leaves its last ones to them
            last = config.vocabulary
            self.sentinels = list(range(last - 1, last - 1 - self.config.sentinels, -1))

    def corrupted(self, tokens: list[int], seed: Tensor) -> tuple[list[int], list[int]]:
        """Returns (source, target) of one text."""
        config: SpanCorruptionConfig = self.config
        found = spans(len(tokens), config.rate, config.length, seed)[: len(self.sentinels)]
        return corrupt(tokens, found, self.sentinels, self.end)

    def prepare(self, batch: Batch, seeds: Tensor) -> tuple[dict[str, Any], Tensor, Tensor]:
        rows = batch["tokens"].tolist()
        pairs = [self.corrupted(row, seed) for row, seed in zip(rows, seeds.cpu(), strict=True)]
        source, source_mask = self._filled([s for s, _ in pairs])
        target, places = self._filled([t for _, t in pairs])
        start = torch.full((len(rows), 1), self.start)
        arguments = {
            "source": source,
            "target": torch.cat([start, target[:, :-1]], dim=1),
            "source_mask": source_mask,
        }
        device = batch["tokens"].device
        return {k: v.to(device) for k, v in arguments.items()}, target.to(device), places.to(device)

    def _filled(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        width = max(map(len, rows))
        tokens = torch.tensor([row + [self.pad] * (width - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        return tokens, torch.arange(width) < lengths[:, None]


# UL2, table 2: (mean span, rate) of the denoisers; S is continuation
REGULAR = [(3.0, 0.15), (8.0, 0.15)]
EXTREME = [(3.0, 0.5), (8.0, 0.5), (64.0, 0.15), (64.0, 0.5)]


class MixtureOfDenoisers(SpanCorruption):
    """One of seven denoisers for each sample, all equally often."""

    config: MixtureOfDenoisersConfig

    def corrupted(self, tokens: list[int], seed: Tensor) -> tuple[list[int], list[int]]:
        chosen = int(uniform(seed.view(1), 1, 8) * 7)
        regular = len(REGULAR)
        if chosen == 6:  # S: the text goes on after a random place in its later part
            share = float(uniform(seed.view(1), 1, 9))
            place = max(1, min(len(tokens) - 1, round(len(tokens) * (0.5 + 0.5 * share))))
            found, mode = [(place, len(tokens))], 2
        else:
            length, rate = (REGULAR + EXTREME)[chosen]
            found = spans(len(tokens), rate, length, seed)[: len(self.sentinels)]
            mode = 0 if chosen < regular else 1
        source, target = corrupt(tokens, found, self.sentinels, self.end)
        return ([self.config.modes[mode]] if self.config.modes else []) + source, target
