"""Extractive question answering: the part of a text that answers a question (Devlin et al. 2018,
arXiv 1810.04805, section 4.2)."""

# b samples, n tokens, m tokens of the text

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.errors import DataError

__all__ = ["Span", "best_spans", "find_answer"]


@dataclass(frozen=True)
class Span:
    """An answer, and the characters of the text from `start` up to `end` that it is."""

    text: str
    start: int
    end: int
    probability: float  # of its first token times that of its last

    def __str__(self) -> str:
        return self.text


@torch.inference_mode()
def find_answer(model: Any, text: str, question: str, longest: int = 30) -> Span:
    """Returns the span of at most `longest` tokens that a model with a span head scores highest.

    A text that does not fit is read in windows that overlap by half; the span with the highest sum
    of scores wins. Raises: DataError for an empty text, and for a question without room for one.
    """
    tokenizer = model.tokenizer
    asked = tokenizer.encode(question, special=False, control=False)
    ids = tokenizer.encode(text, special=False, control=False)
    if not ids:
        raise DataError("The text is empty: there is not one token to read.")
    layout, limit = tokenizer.layout, model.config.backbone.length
    room = limit - len(asked) - layout.added(True)
    if room < 1:
        raise DataError(f"The question leaves no room for a text in the model's {limit} tokens.")
    before, found = layout.before_pair(len(asked)), []
    for first, window in _windows(ids, room):
        row, types = (torch.tensor([x]) for x in layout.assemble(asked, window, True))
        logits = model(row.to(model.device), types=types.to(model.device)).logits.float().cpu()
        logits = logits[:, before : before + len(window)]  # 1 m 2
        start, end = best_spans(logits, torch.ones(logits.shape[:2]).bool(), longest)[0].tolist()
        score = float(logits[0, start, 0] + logits[0, end, 1])
        chances = logits[0].softmax(0)
        found.append(
            (score, first + start, first + end, float(chances[start, 0] * chances[end, 1]))
        )
    _, start, end, probability = max(found)
    places = tokenizer.spans(text)
    begin, stop = places[start][0], places[end][1]
    answer = text[begin:stop]
    begin += len(answer) - len(answer.lstrip())  # a space that is part of a token
    return Span(answer.strip(), begin, begin + len(answer.strip()), probability)


def best_spans(logits: Tensor, allowed: Tensor, longest: int) -> Tensor:  # b n 2, b n -> b 2
    """Returns the (start, end) with the greatest sum of scores, of all spans of at most `longest`
    tokens with both ends at allowed places."""
    start, end = logits.masked_fill(~allowed[..., None], -torch.inf).unbind(-1)
    n = logits.shape[1]
    spans = torch.ones(n, n, dtype=torch.bool, device=logits.device).triu().tril(longest - 1)
    sums = (start[:, :, None] + end[:, None, :]).masked_fill(~spans, -torch.inf)
    best = sums.flatten(1).argmax(-1)
    return torch.stack([best // n, best % n], -1)


def _windows(ids: list[int], room: int) -> Iterator[tuple[int, list[int]]]:
    """Yields (place of its first token, tokens) of windows that cover all tokens."""
    step = max(1, room // 2)
    for first in range(0, max(len(ids) - room, 0) + step, step):
        if first < len(ids):
            yield first, ids[first : first + room]
