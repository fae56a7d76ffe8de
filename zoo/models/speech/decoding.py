"""From scores to labels: CTC and transducers, greedily and by prefixes; each label with the place
where it was heard."""

# n tokens of sound, v labels, b batch, p joint width

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Label", "ctc_beam", "ctc_greedy", "transducer_beam", "transducer_greedy"]

AHEAD = 8  # tokens of sound that a transducer's joint looks at after one text
# log-probability that a language model adds for a label after the labels so far
Scorer = Callable[[tuple[int, ...], int], float]


@dataclass(frozen=True)
class Label:
    """One label: it stands for the tokens of sound [start, stop)."""

    index: int
    start: int
    stop: int
    probability: float


# -- CTC -------------------------------------------------------------------------------------------


def ctc_greedy(log_probs: Tensor, blank: int) -> list[Label]:  # n v
    """Returns the labels of the best path: repeats are one, blanks none."""
    best, indices = log_probs.max(-1)
    return collapsed(indices.tolist(), best.exp().tolist(), blank)


def collapsed(indices: Sequence[int], probabilities: Sequence[float], blank: int) -> list[Label]:
    """Returns the labels of a path, each as sure as its surest place."""
    found: list[Label] = []
    last = blank
    for place, (index, probability) in enumerate(zip(indices, probabilities, strict=True)):
        if index != blank and index == last:
            label = found[-1]
            surest = max(label.probability, probability)
            found[-1] = Label(index, label.start, place + 1, surest)
        elif index != blank:
            found.append(Label(index, place, place + 1, probability))
        last = index
    return found


def ctc_beam(
    log_probs: Tensor,  # n v
    blank: int,
    beam: int = 16,
    score: Scorer | None = None,
    threshold: float = 12.0,
) -> tuple[list[int], float]:
    """Returns (labels, log-probability of them, over all paths that give them) by prefix search
    (Hannun et al. 2014, arXiv 1408.2873).

    Labels whose log-probability at a place is more than `threshold` below the best are left out
    there; `score` adds what a language model thinks of each label.
    """
    table = log_probs.detach().float().cpu().numpy()
    # prefix -> [log-probability of paths that end in a blank, in the last label, model's part]
    live: dict[tuple[int, ...], list[float]] = {(): [0.0, -math.inf, 0.0]}
    for row in table:
        candidates = np.flatnonzero(row >= row.max() - threshold).tolist()
        grown: dict[tuple[int, ...], list[float]] = {}
        for prefix, (ending, going, model) in live.items():
            total = _add(ending, going)
            for label in candidates:
                here = float(row[label])
                if label == blank:
                    entry = grown.setdefault(prefix, [-math.inf, -math.inf, model])
                    entry[0] = _add(entry[0], total + here)
                    continue
                if prefix and label == prefix[-1]:  # held on, or said again after a blank
                    entry = grown.setdefault(prefix, [-math.inf, -math.inf, model])
                    entry[1] = _add(entry[1], going + here)
                    before = ending
                else:
                    before = total
                if before == -math.inf:
                    continue
                longer = (*prefix, label)
                if longer not in grown:
                    added = 0.0 if score is None else score(prefix, label)
                    grown[longer] = [-math.inf, -math.inf, model + added]
                entry = grown[longer]
                entry[1] = _add(entry[1], before + here)
        order = sorted(grown.items(), key=lambda item: -_add(item[1][0], item[1][1]) - item[1][2])
        live = dict(order[:beam])
    prefix, (ending, going, model) = max(
        live.items(), key=lambda item: _add(item[1][0], item[1][1]) + item[1][2]
    )
    return list(prefix), _add(ending, going)


def _add(a: float, b: float) -> float:
    """Returns log(e^a + e^b)."""
    high, low = (a, b) if a > b else (b, a)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


# -- transducers -----------------------------------------------------------------------------------


def transducer_greedy(
    model: Any,
    heard: Tensor,  # b n p, what the joint hears
    lengths: Tensor,  # b
) -> list[list[Label]]:
    """Returns the labels of each sound, by the best choice at every step.

    A blank goes on to the next token of sound, a label stays (RNN-T); with durations both go on as
    far as the model says. `max_symbols` labels in one place go on by one. A label's probability is
    among all labels.

    Until the next label the text stays what it is, so the joint looks AHEAD tokens of sound in one
    call: there are about as many calls as labels of the longest sound, not as tokens.
    """
    config = model.config
    b, blank, v, device = heard.shape[0], config.blank, config.vocabulary, heard.device
    durations = torch.tensor(config.durations, device=device)
    ends, places, symbols = lengths.tolist(), [0] * b, [0] * b
    ahead = torch.arange(AHEAD, device=device)
    said, state = model.prediction(torch.full((b, 1), blank, device=device))
    found: list[list[Label]] = [[] for _ in range(b)]
    while rows := [row for row in range(b) if places[row] < ends[row]]:
        index = torch.tensor(rows, device=device)[:, None]
        first = torch.tensor([places[row] for row in rows], device=device)[:, None]
        near = heard[index, (first + ahead).clamp(max=heard.shape[1] - 1)]  # r k p
        scores = model.joint(near, said[index[:, 0]])  # r k v
        best, chosen = scores[..., :v].float().softmax(-1).max(-1)
        blanks = chosen == blank
        steps = durations[scores[..., v:].argmax(-1)] if len(durations) else blanks.long()
        spoken: list[tuple[int, int]] = []  # rows that go on with a label
        for row, labels, probabilities, moves in zip(
            rows, chosen.tolist(), best.tolist(), steps.tolist(), strict=True
        ):
            offset, end = 0, ends[row]
            while offset < AHEAD and (place := places[row]) < end:
                label, step = labels[offset], moves[offset]
                if label == blank:
                    step, symbols[row] = max(step, 1), 0
                    places[row], offset = place + step, offset + step
                    continue
                symbols[row] = 0 if step else symbols[row] + 1
                if symbols[row] >= config.max_symbols:
                    step, symbols[row] = 1, 0
                last = min(place + max(step, 1), end)
                found[row].append(Label(label, place, last, probabilities[offset]))
                places[row] = place + step
                spoken.append((row, label))
                break
        if spoken:
            row = torch.tensor([row for row, _ in spoken], device=device)
            tokens = torch.tensor([[label] for _, label in spoken], device=device)
            new, new_state = model.prediction(tokens, tuple(part[:, row] for part in state))
            said = said.index_copy(0, row, new)
            state = tuple(old.index_copy(1, row, part) for old, part in zip(state, new_state))
    return found


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


def transducer_beam(
    model: Any,
    heard: Tensor,  # n p, what the joint hears
    beam: int = 16,
    score: Scorer | None = None,
) -> tuple[list[Label], float]:
    """Returns (labels, log-probability over the ways found that give them) of one sound, by prefix
    search over a transducer without durations (Graves 2012, arXiv 1211.3711, algorithm 1; of a
    place, labels are put on for as long as they beat the prefixes that went on).

    `score` adds what a language model thinks of each label.
    """
    blank, found = model.config.blank, [_Prefix((), 0.0, 0.0, 0)]
    start = torch.full((1, 1), blank, device=heard.device)
    said, state = model.prediction(start)
    for place in range(len(heard)):
        live, found = found, []
        over: dict[tuple[int, ...], _Prefix] = {}  # those that went on to the next place
        for symbols in range(model.config.max_symbols + 1):
            rows = torch.tensor([one.row for one in live], device=heard.device)
            scores = model.joint(heard[place], said[rows, 0]).float().log_softmax(-1)  # live v
            for one, log in zip(live, scores[:, blank].tolist(), strict=True):
                _merge(over, _Prefix(one.labels, one.score + log, one.best + log, one.row))
            if symbols == model.config.max_symbols:
                break
            grown = _grown(live, scores, blank, place, beam, score)
            least = sorted((one.score for one in over.values()), reverse=True)[beam - 1 : beam]
            live = [one for one in grown if not least or one.score > least[0]]
            if not live:
                break
            rows = torch.tensor([one.row for one in live], device=heard.device)
            labels = torch.tensor([[one.labels[-1].index] for one in live], device=heard.device)
            new, new_state = model.prediction(labels, tuple(part[:, rows] for part in state))
            for index, one in enumerate(live):
                one.row = len(said) + index
            said = torch.cat([said, new])
            state = tuple(torch.cat(pair, 1) for pair in zip(state, new_state))
        found = sorted(over.values(), key=lambda one: -one.score)[:beam]
        rows = torch.tensor([one.row for one in found], device=heard.device)
        said, state = said[rows], tuple(part[:, rows] for part in state)
        for index, one in enumerate(found):
            one.row = index
    return list(found[0].labels), found[0].score


def _grown(
    live: list[_Prefix], scores: Tensor, blank: int, place: int, beam: int, score: Scorer | None
) -> list[_Prefix]:
    """Returns the best `beam` prefixes with a label more, likeliest first."""
    before = torch.tensor([one.score for one in live], device=scores.device)
    totals = before[:, None] + scores
    totals[:, blank] = -math.inf
    if score is not None:
        added = [
            [0.0 if v == blank else score(one.indices, v) for v in range(scores.shape[1])]
            for one in live
        ]
        totals += torch.tensor(added, device=scores.device)
    count = min(beam, totals.numel() - len(live))
    best, flat = totals.flatten().topk(count)
    found = []
    for total, index in zip(best.tolist(), flat.tolist(), strict=True):
        row, label = divmod(index, scores.shape[1])
        log = float(scores[row, label])
        new = Label(label, place, place + 1, math.exp(log))
        one = live[row]
        found.append(_Prefix((*one.labels, new), total, one.best + log, one.row))
    return found


def _merge(found: dict[tuple[int, ...], _Prefix], one: _Prefix) -> None:
    """Adds a way to a prefix; its labels are where the best way has them."""
    other = found.get(one.indices)
    if other is not None:
        better = one if one.best > other.best else other
        both = _add(one.score, other.score)
        one = _Prefix(better.labels, both, better.best, better.row)
    found[one.indices] = one
