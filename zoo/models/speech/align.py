"""When a known text was said: forced alignment, and words out of labels."""

# n tokens of sound, u labels, v labels in the vocabulary

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DataError
from zoo.models.speech.labels import Label
from zoo.models.speech.transcript import Word

__all__ = ["ctc_align", "labels_needed", "transducer_align", "words_of"]


def labels_needed(labels: list[int]) -> int:
    """Returns how many tokens of sound a CTC path of these labels takes at least: a blank must
    stand between equal ones."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))


def ctc_align(log_probs: Tensor, labels: list[int], blank: int) -> list[Label]:  # n v
    """Returns the most probable place of each label, by torchaudio's forced alignment.

    Raises: DataError when the sound is too short for them.
    """
    from torchaudio.functional import forced_align, merge_tokens

    needed = labels_needed(labels)
    if log_probs.shape[0] < needed:
        raise DataError(
            f"The text needs {needed} tokens of sound and there are {log_probs.shape[0]}: the "
            "sound is too short for it."
        )
    if not labels:
        return []
    targets = torch.tensor([labels], dtype=torch.int32, device=log_probs.device)
    path, scores = forced_align(log_probs[None].float().contiguous(), targets, blank=blank)
    spans = merge_tokens(path[0], scores[0].exp(), blank=blank)
    return [Label(span.token, span.start, span.end, float(span.score)) for span in spans]


def transducer_align(log_probs: Tensor, labels: list[int], blank: int) -> list[Label]:  # n u+1 v
    """Returns where each label is said on the most probable path of a transducer (RNN-T) through
    (token of sound, labels said).

    Raises: DataError for no sound at all.
    """
    n, count = log_probs.shape[0], len(labels)
    if not n:
        raise DataError("The sound is too short for a single token, so nothing can be aligned.")
    table = log_probs.detach().float().cpu().numpy()
    silent = table[:, :, blank]  # n u+1
    spoken = table[:, np.arange(count), labels]  # n u, label u said at token n
    best = np.full((n, count + 1), -np.inf)
    best[0] = np.concatenate([[0.0], np.cumsum(spoken[0])])
    came = np.zeros((n, count + 1), dtype=bool)  # whether by a label, in the same place
    came[0, 1:] = True
    for place in range(1, n):
        waited = best[place - 1] + silent[place - 1]
        # best[u] = max(waited[u], best[u-1] + spoken[u-1]): a running maximum of differences
        gained = np.concatenate([[0.0], np.cumsum(spoken[place])])
        lead = np.maximum.accumulate(waited - gained)
        best[place] = lead + gained
        came[place, 1:] = lead[1:] > (waited - gained)[1:]
    found: list[Label] = []
    place, said = n - 1, count
    while said:
        if came[place, said]:
            said -= 1
            score = float(np.exp(spoken[place, said]))
            found.append(Label(labels[said], place, place + 1, score))
        else:
            place -= 1
    return found[::-1]


def words_of(
    labels: Iterable[Label], tokenizer: Any, seconds_per_token: float, offset: float = 0.0
) -> list[Word]:
    """Returns the words that labels spell: a word lasts from its first label to its last one, and
    is as probable as its labels are on (geometric) average."""
    stream, words = tokenizer.stream(skip_special=True), []
    text = ""
    parts: list[Label] = []  # of the word that is being spelt

    def finish() -> None:
        nonlocal text, parts
        if text:
            spoken = [np.log(max(label.probability, 1e-12)) for label in parts]
            start, stop = parts[0].start, parts[-1].stop
            words.append(
                Word(
                    text,
                    round(offset + start * seconds_per_token, 3),
                    round(offset + stop * seconds_per_token, 3),
                    float(np.exp(np.mean(spoken))),
                )
            )
        text, parts = "", []

    def take(piece: str, label: Label | None) -> None:
        nonlocal text
        for index, letters in enumerate(_split(piece)):
            if letters.isspace():
                finish()
                continue
            text += letters
            if label is not None and (index == 0 or not parts or parts[-1] is not label):
                parts.append(label)

    last = None
    for label in labels:
        take(stream.feed(label.index), label)
        last = label
    take(stream.end(), last)
    finish()
    return words


def _split(piece: str) -> list[str]:
    """Returns a text cut into runs of blanks and runs of other characters."""
    runs: list[str] = []
    for letter in piece:
        if runs and runs[-1][-1].isspace() == letter.isspace():
            runs[-1] += letter
        else:
            runs.append(letter)
    return runs
