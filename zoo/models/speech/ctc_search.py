"""From CTC's scores to labels, greedily and by prefixes, as the sound comes in: what is kept of it
is the labels, not the scores."""

# n tokens of sound, v labels

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
from torch import Tensor

from zoo.models.speech.labels import Label, Scorer, log_add

__all__ = ["CTCBeam", "CTCGreedy", "ctc_beam", "ctc_greedy"]

OFTEN = 32  # tokens of sound after which prefixes are shortened


class CTCGreedy:
    """The labels of the best path: repeats are one, blanks none; each as sure as its surest
    place."""

    def __init__(self, blank: int) -> None:
        self.blank, self.last, self.place = blank, blank, 0
        self.labels: list[Label] = []

    def hear(self, log_probs: Tensor) -> None:  # n v
        """Goes on with the next tokens of sound."""
        best, indices = log_probs.max(-1)
        self._path(indices.tolist(), best.exp().tolist())

    def _path(self, indices: Sequence[int], probabilities: Sequence[float]) -> None:
        labels, blank = self.labels, self.blank
        for index, probability in zip(indices, probabilities, strict=True):
            place, self.place = self.place, self.place + 1
            if index != blank and index == self.last:
                label = labels[-1]
                surest = max(label.probability, probability)
                labels[-1] = Label(index, label.start, place + 1, surest)
            elif index != blank:
                labels.append(Label(index, place, place + 1, probability))
            self.last = index


def ctc_greedy(log_probs: Tensor, blank: int) -> list[Label]:  # n v
    """Returns the labels of the best path through a whole sound."""
    search = CTCGreedy(blank)
    search.hear(log_probs)
    return search.labels


@dataclass(slots=True, eq=False)
class _Way:
    """A path: its log-probability, and its labels, the last one first."""

    score: float = -math.inf
    label: Label | None = None  # with its probabilities summed up
    before: _Way | None = None

    def held(self, log: float, place: int) -> _Way:
        """Returns the way that stays in its last label."""
        assert self.label is not None
        total = self.label.probability + math.exp(log)
        label = Label(self.label.index, self.label.start, place + 1, total)
        return _Way(self.score + log, label, self.before)

    def longer(self, index: int, log: float, place: int) -> _Way:
        """Returns the way that goes on with a new label."""
        before = self if self.label is not None else None
        return _Way(self.score + log, Label(index, place, place + 1, math.exp(log)), before)


NOWHERE = _Way()


@dataclass(slots=True, eq=False)
class _Entry:
    """What is known of a prefix."""

    model: float  # what the language model says of it
    ending: float = -math.inf  # log-probability of all paths that end in a blank
    going: float = -math.inf  # and in the last label
    best_ending: _Way = NOWHERE  # the best of them
    best_going: _Way = NOWHERE

    @property
    def score(self) -> float:
        return log_add(self.ending, self.going) + self.model

    @property
    def best(self) -> _Way:
        return max(self.best_ending, self.best_going, key=lambda way: way.score)


class CTCBeam:
    """Prefix search (Hannun et al. 2014, arXiv 1408.2873).

    Labels whose log-probability at a place is more than `threshold` below the best are left out
    there; `score` adds what a language model thinks of each label. A label is where the best path
    has it of those that were followed, as sure as it is there on average.
    """

    def __init__(
        self, blank: int, beam: int = 16, score: Scorer | None = None, threshold: float = 12.0
    ) -> None:
        self.blank, self.beam, self.scorer, self.threshold = blank, beam, score, threshold
        # What all prefixes begin with is kept once, so that a place costs the same however much
        # was said before it; the last of it stays in the prefixes, which look at it.
        self.stem: tuple[int, ...] = ()
        nothing = _Entry(0.0, ending=0.0, best_ending=_Way(0.0))
        self.live: dict[tuple[int, ...], _Entry] = {(): nothing}
        self.place = 0

    def hear(self, log_probs: Tensor) -> None:  # n v
        """Goes on with the next tokens of sound."""
        for row in log_probs.detach().float().cpu().numpy():
            self._step(row)
            self.place += 1
            if self.place % OFTEN == 0:
                self._shorten()

    def _step(self, row: np.ndarray) -> None:  # v
        candidates = np.flatnonzero(row >= row.max() - self.threshold).tolist()
        grown: dict[tuple[int, ...], _Entry] = {}
        for prefix, old in self.live.items():
            best = old.best
            for label in candidates:
                here = float(row[label])
                if label == self.blank:
                    entry = grown.setdefault(prefix, _Entry(old.model))
                    entry.ending = log_add(entry.ending, log_add(old.ending, old.going) + here)
                    waited = _Way(best.score + here, best.label, best.before)
                    entry.best_ending = _better(entry.best_ending, waited)
                    continue
                before, way = log_add(old.ending, old.going), best
                if prefix and label == prefix[-1]:  # held on, or said again after a blank
                    entry = grown.setdefault(prefix, _Entry(old.model))
                    entry.going = log_add(entry.going, old.going + here)
                    if old.best_going is not NOWHERE:
                        held = old.best_going.held(here, self.place)
                        entry.best_going = _better(entry.best_going, held)
                    before, way = old.ending, old.best_ending
                if before == -math.inf:
                    continue
                entry = self._longer(grown, prefix, label, old.model)
                entry.going = log_add(entry.going, before + here)
                entry.best_going = _better(entry.best_going, way.longer(label, here, self.place))
        order = sorted(grown.items(), key=lambda item: -item[1].score)
        self.live = dict(order[: self.beam])

    def _longer(
        self,
        grown: dict[tuple[int, ...], _Entry],
        prefix: tuple[int, ...],
        label: int,
        model: float,
    ) -> _Entry:
        longer = (*prefix, label)
        if longer not in grown:
            asked = 0.0
            if self.scorer is not None:
                asked = self.scorer((*self.stem, *prefix), label)
            grown[longer] = _Entry(model + asked)
        return grown[longer]

    def _shorten(self) -> None:
        same = list(takewhile(lambda labels: len(set(labels)) == 1, zip(*self.live)))
        if (count := len(same) - 1) > 0:
            self.stem += next(iter(self.live))[:count]
            self.live = {prefix[count:]: entry for prefix, entry in self.live.items()}

    @property
    def best(self) -> _Entry:
        """The likeliest prefix."""
        return max(self.live.values(), key=lambda entry: entry.score)

    @property
    def labels(self) -> list[Label]:
        """What the likeliest prefix says, and where."""
        found = []
        way: _Way | None = self.best.best
        while way is not None and way.label is not None:
            label = way.label
            found.append(replace(label, probability=label.probability / (label.stop - label.start)))
            way = way.before
        return found[::-1]


def _better(a: _Way, b: _Way) -> _Way:
    return b if b.score > a.score else a


def ctc_beam(
    log_probs: Tensor,  # n v
    blank: int,
    beam: int = 16,
    score: Scorer | None = None,
    threshold: float = 12.0,
) -> tuple[list[Label], float]:
    """Returns (labels, log-probability of them, over all paths that give them) of a whole sound,
    by prefix search (see `CTCBeam`)."""
    search = CTCBeam(blank, beam, score, threshold)
    search.hear(log_probs)
    found = search.best
    return search.labels, log_add(found.ending, found.going)
