"""From scores to labels: CTC greedily and by prefixes, transducers greedily; each label with the
place where it was heard."""

# n tokens of sound, v labels, b batch, p joint width

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Label", "ctc_beam", "ctc_greedy", "transducer_greedy"]

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
    """
    config = model.config
    b, blank, v = heard.shape[0], config.blank, config.vocabulary
    rows = torch.arange(b, device=heard.device)
    durations = torch.tensor(config.durations, device=heard.device)
    place = torch.zeros(b, dtype=torch.long, device=heard.device)
    symbols = torch.zeros_like(place)
    start = torch.full((b, 1), blank, device=heard.device)
    said, state = model.prediction(start)
    found: list[list[Label]] = [[] for _ in range(b)]
    while bool((active := place < lengths).any()):
        scores = model.joint(heard[rows, place.clamp(max=heard.shape[1] - 1)], said[:, 0])  # b v
        probability, label = scores[:, :v].float().softmax(-1).max(-1)
        spoken = active & (label != blank)
        if len(durations):
            step = durations[scores[:, v:].argmax(-1)]
            step = torch.where(spoken, step, step.clamp(min=1))
        else:
            step = (~spoken).long()
        symbols = torch.where(spoken & (step == 0), symbols + 1, 0)
        stuck = symbols >= config.max_symbols
        step, symbols = torch.where(stuck, 1, step), torch.where(stuck, 0, symbols)
        for row in spoken.nonzero().flatten().tolist():
            first = int(place[row])
            last = min(first + max(int(step[row]), 1), int(lengths[row]))
            found[row].append(Label(int(label[row]), first, last, float(probability[row])))
        if bool(spoken.any()):
            new_said, new_state = model.prediction(label[:, None], state)
            chosen = spoken[:, None]
            said = torch.where(chosen[..., None], new_said, said)
            state = tuple(torch.where(chosen[None], n, o) for n, o in zip(new_state, state))
        place = torch.where(active, place + step, place)
    return found
