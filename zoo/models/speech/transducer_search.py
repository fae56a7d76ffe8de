"""From a transducer's ears to labels, greedily and by prefixes, as the sound comes in: what is kept
of it is the labels."""

# n tokens of sound, v labels, b batch, p joint width

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from zoo.models.speech.labels import Label, Scorer, log_add

__all__ = ["TransducerBeam", "TransducerGreedy", "hear_together", "transducer_beam",
           "transducer_greedy"]  # fmt: skip

AHEAD = 8  # tokens of sound that a transducer's joint looks at after one text


class TransducerGreedy:
    """The best choice at every step.

    A blank goes on to the next token of sound, a label stays (RNN-T); with durations both go on as
    far as the model says. `max_symbols` labels in one place go on by one. A label's probability is
    among all labels.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model = model
        start = torch.full((1, 1), model.config.blank, device=device)
        self.said, self.state = model.prediction(start)  # 1 1 p, each (layers 1 p)
        self.heard = self.place = self.symbols = 0
        self.found: list[Label] = []

    @property
    def labels(self) -> list[Label]:
        """What was said; no label lasts longer than the sound."""
        return [
            label if label.stop <= self.heard else replace(label, stop=self.heard)
            for label in self.found
        ]


def hear_together(
    searches: Sequence[TransducerGreedy],
    heard: Tensor,  # b n p, what the joint hears
    lengths: Sequence[int],  # b
) -> None:
    """Lets searches of one model go on with the next tokens of their sounds.

    Until the next label the text stays what it is, so the joint looks AHEAD tokens of sound in one
    call: there are about as many calls as labels of the longest sound, not as tokens.
    """
    if not searches:
        return
    model, device = searches[0].model, heard.device
    config, blank, v = model.config, model.config.blank, model.config.vocabulary
    durations = torch.tensor(config.durations, device=device)
    starts = [one.heard for one in searches]
    for one, length in zip(searches, lengths, strict=True):
        one.heard += length
    said = torch.cat([one.said for one in searches])
    state = tuple(torch.cat(parts, 1) for parts in zip(*(one.state for one in searches)))
    ahead = torch.arange(AHEAD, device=device)
    while rows := [row for row, one in enumerate(searches) if one.place < one.heard]:
        index = torch.tensor(rows, device=device)[:, None]
        places = [searches[row].place - starts[row] for row in rows]
        first = torch.tensor(places, device=device)[:, None]
        near = heard[index, (first + ahead).clamp(max=heard.shape[1] - 1)]  # r k p
        scores = model.joint(near, said[index[:, 0]])  # r k v
        best, chosen = scores[..., :v].float().softmax(-1).max(-1)
        blanks = chosen == blank
        steps = durations[scores[..., v:].argmax(-1)] if len(durations) else blanks.long()
        spoken: list[tuple[int, int]] = []  # rows that go on with a label
        for row, labels, probabilities, moves in zip(
            rows, chosen.tolist(), best.tolist(), steps.tolist(), strict=True
        ):
            one, offset = searches[row], 0
            while offset < AHEAD and one.place < one.heard:
                label, step = labels[offset], moves[offset]
                if label == blank:
                    step, one.symbols = max(step, 1), 0
                    one.place, offset = one.place + step, offset + step
                    continue
                one.symbols = 0 if step else one.symbols + 1
                if one.symbols >= config.max_symbols:
                    step, one.symbols = 1, 0
                last = one.place + max(step, 1)
                one.found.append(Label(label, one.place, last, probabilities[offset]))
                one.place += step
                spoken.append((row, label))
                break
        if spoken:
            which = torch.tensor([row for row, _ in spoken], device=device)
            tokens = torch.tensor([[label] for _, label in spoken], device=device)
            new, new_state = model.prediction(tokens, tuple(part[:, which] for part in state))
            said = said.index_copy(0, which, new)
            state = tuple(old.index_copy(1, which, part) for old, part in zip(state, new_state))
    for row, one in enumerate(searches):
        one.said = said[row : row + 1]
        one.state = tuple(part[:, row : row + 1] for part in state)


def transducer_greedy(
    model: Any,
    heard: Tensor,  # b n p, what the joint hears
    lengths: Tensor,  # b
) -> list[list[Label]]:
    """Returns the labels of whole sounds, decoded together."""
    searches = [TransducerGreedy(model, heard.device) for _ in range(len(heard))]
    hear_together(searches, heard, lengths.tolist())
    return [one.labels for one in searches]


@dataclass
class _Prefix:
    """What may have been said so far, and all that goes on depends on."""

    labels: tuple[Label, ...]  # with places and probabilities of the best way here
    score: float  # log-probability over all ways here, and what a language model adds
    best: float  # of the best way
    row: int  # in the batch of predictions

    @property
    def indices(self) -> tuple[int, ...]:
        return tuple(label.index for label in self.labels)


class TransducerBeam:
    """Prefix search over a transducer without durations (Graves 2012, arXiv 1211.3711, algorithm 1;
    of a place, labels are put on for as long as they beat the prefixes that went on).

    `score` adds what a language model thinks of each label.
    """

    def __init__(
        self, model: Any, device: torch.device, beam: int = 16, score: Scorer | None = None
    ) -> None:
        self.model, self.beam, self.scorer = model, beam, score
        start = torch.full((1, 1), model.config.blank, device=device)
        self.said, self.state = model.prediction(start)
        # What all prefixes begin with is kept once, so that a place costs the same however much
        # was said before it.
        self.stem: list[Label] = []
        self.found = [_Prefix((), 0.0, 0.0, 0)]
        self.place = 0

    def hear(self, heard: Tensor) -> None:  # n p, what the joint hears
        """Goes on with the next tokens of sound."""
        for token in heard:
            self._step(token)
            self.place += 1
            self._shorten()

    def _step(self, token: Tensor) -> None:  # p
        model, blank, device = self.model, self.model.config.blank, token.device
        said, state, live = self.said, self.state, self.found
        over: dict[tuple[int, ...], _Prefix] = {}  # those that went on to the next place
        for symbols in range(model.config.max_symbols + 1):
            rows = torch.tensor([one.row for one in live], device=device)
            scores = model.joint(token, said[rows, 0]).float().log_softmax(-1)  # live v
            for one, log in zip(live, scores[:, blank].tolist(), strict=True):
                _merge(over, _Prefix(one.labels, one.score + log, one.best + log, one.row))
            if symbols == model.config.max_symbols:
                break
            grown = self._grown(live, scores)
            least = sorted((one.score for one in over.values()), reverse=True)
            bar = least[self.beam - 1 : self.beam]
            live = [one for one in grown if not bar or one.score > bar[0]]
            if not live:
                break
            rows = torch.tensor([one.row for one in live], device=device)
            labels = torch.tensor([[one.labels[-1].index] for one in live], device=device)
            new, new_state = model.prediction(labels, tuple(part[:, rows] for part in state))
            for index, one in enumerate(live):
                one.row = len(said) + index
            said = torch.cat([said, new])
            state = tuple(torch.cat(pair, 1) for pair in zip(state, new_state))
        self.found = sorted(over.values(), key=lambda one: -one.score)[: self.beam]
        rows = torch.tensor([one.row for one in self.found], device=device)
        self.said, self.state = said[rows], tuple(part[:, rows] for part in state)
        for index, one in enumerate(self.found):
            one.row = index

    def _grown(self, live: list[_Prefix], scores: Tensor) -> list[_Prefix]:
        """Returns the best prefixes with a label more, likeliest first."""
        blank, v = self.model.config.blank, scores.shape[1]
        before = torch.tensor([one.score for one in live], device=scores.device)
        totals = before[:, None] + scores
        totals[:, blank] = -math.inf
        if self.scorer is not None:
            stem = tuple(label.index for label in self.stem)
            added = [
                [0.0 if x == blank else self.scorer((*stem, *one.indices), x) for x in range(v)]
                for one in live
            ]
            totals += torch.tensor(added, device=scores.device)
        count = min(self.beam, totals.numel() - len(live))
        best, flat = totals.flatten().topk(count)
        found = []
        for total, index in zip(best.tolist(), flat.tolist(), strict=True):
            row, label = divmod(index, v)
            log = float(scores[row, label])
            new = Label(label, self.place, self.place + 1, math.exp(log))
            one = live[row]
            found.append(_Prefix((*one.labels, new), total, one.best + log, one.row))
        return found

    def _shorten(self) -> None:
        columns = zip(*(one.labels for one in self.found))
        same = list(takewhile(lambda labels: len({id(one) for one in labels}) == 1, columns))
        if same:
            self.stem += [labels[0] for labels in same]
            for one in self.found:
                one.labels = one.labels[len(same) :]

    @property
    def labels(self) -> list[Label]:
        """What the likeliest prefix says, and where."""
        return [*self.stem, *self.found[0].labels]


def _merge(found: dict[tuple[int, ...], _Prefix], one: _Prefix) -> None:
    """Adds a way to a prefix; its labels are where the best way has them."""
    other = found.get(one.indices)
    if other is not None:
        better = one if one.best > other.best else other
        both = log_add(one.score, other.score)
        one = _Prefix(better.labels, both, better.best, better.row)
    found[one.indices] = one


def transducer_beam(
    model: Any,
    heard: Tensor,  # n p, what the joint hears
    beam: int = 16,
    score: Scorer | None = None,
) -> tuple[list[Label], float]:
    """Returns (labels, log-probability over the ways found that give them) of a whole sound, by
    prefix search (see `TransducerBeam`)."""
    search = TransducerBeam(model, heard.device, beam, score)
    search.hear(heard)
    return search.labels, search.found[0].score
