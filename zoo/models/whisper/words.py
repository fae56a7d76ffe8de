"""When each word was said: cross-attention that follows the sound, and dynamic time warping."""

# n tokens, t frames of the encoder, h heads

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.attention import Record

__all__ = ["Timing", "align", "median_filter", "merge_punctuation", "split_words", "warp"]

SMOOTHING = 7  # frames that a median is taken over
SPACELESS = {"zh", "ja", "th", "lo", "my", "yue"}  # languages that part words by no blank


@dataclass
class Timing:
    """A word with its tokens; seconds from the start of its window."""

    text: str
    tokens: list[int]
    start: float
    stop: float
    probability: float


def align(
    model: Any,
    memory: Tensor,  # 1 t d
    prompt: list[int],  # start, language, task
    tokens: list[int],  # text alone
    frames: int,  # of the encoder that hold sound
    language: str | None,
) -> list[Timing]:
    """Returns the words of a text with their times, by one pass over it."""
    config, layout = model.config, model.config.layout
    if not tokens:
        return []
    given = [*prompt, layout.no_times, *tokens, layout.end]
    record = Record(attention=True)
    out = model.decode(torch.tensor([given], device=memory.device), memory, record=record)
    shares = out.logits[0, len(prompt) : -2, : layout.end].float().softmax(-1)
    probability = shares[range(len(tokens)), tokens].tolist()
    weights = torch.stack([record.cross_weights[i][0, h] for i, h in heads(config)]).float()
    weights = weights[:, :, :frames]
    weights = weights / weights.sum(-1, keepdim=True)  # the softmax over those frames alone
    deviation, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    smooth = median_filter((weights - mean) / deviation, SMOOTHING).mean(0)
    rows, columns = warp(-smooth[len(prompt) : -1].double().cpu().numpy())
    words = split_words(model, [*tokens, layout.end], language)
    if len(words) < 2:
        return []
    sizes = [len(part) for _, part in words[:-1]]
    edges = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    begins = np.concatenate([[True], np.diff(rows) > 0])
    seconds = columns[begins] / (config.sound.positions / config.sound.seconds)
    return [
        Timing(text, part, seconds[a], seconds[b], float(np.mean(probability[a:b])))
        for (text, part), a, b in zip(words, edges[:-1], edges[1:])
    ]


def heads(config: Any) -> list[tuple[int, int]]:
    """Returns (layer, head) of the cross-attention that follows the words."""
    if config.alignment_heads:
        return [(layer, head) for layer, head in config.alignment_heads]
    depth = config.decoder.depth
    count = config.decoder.cross_attention.shape(config.decoder.width)[0]
    return [(layer, head) for layer in range(depth // 2, depth) for head in range(count)]


def median_filter(x: Tensor, size: int) -> Tensor:  # h n t -> h n t
    """Returns the median of every `size` neighbours along the last axis, mirrored at its ends."""
    reach = size // 2
    if x.shape[-1] <= reach:
        return x
    return F.pad(x, (reach, reach), mode="reflect").unfold(-1, size, 1).median(-1).values


def warp(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # n t
    """Returns the cheapest way through a matrix from corner to corner, as (rows, columns), each
    step going on in one of them or in both.

    Diagonals are done at once: their cells do not depend on each other.
    """
    n, t = cost.shape
    total = np.full((n + t + 1, n + 1), np.inf, np.float32)  # [diagonal i + j, row i]
    total[0, 0] = 0
    step = np.zeros((n + t + 1, n + 1), np.int8)  # 0 both, 1 the row, 2 the column
    for diagonal in range(2, n + t + 1):
        low, high = max(1, diagonal - t), min(n, diagonal - 1)
        rows = np.arange(low, high + 1)
        both = total[diagonal - 2, rows - 1]
        row, column = total[diagonal - 1, rows - 1], total[diagonal - 1, rows]
        take_both = (both < row) & (both < column)
        take_row = ~take_both & (row < both) & (row < column)
        step[diagonal, rows] = np.where(take_both, 0, np.where(take_row, 1, 2))
        best = np.where(take_both, both, np.where(take_row, row, column))
        total[diagonal, rows] = cost[rows - 1, diagonal - rows - 1] + best
    path = []
    i, j = n, t
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        move = 2 if i == 0 else 1 if j == 0 else step[i + j, i]
        i, j = i - (move != 2), j - (move != 1)
    rows, columns = np.array(path[::-1]).T
    return rows, columns


# -- words -----------------------------------------------------------------------------------------


def split_words(model: Any, tokens: list[int], language: str | None) -> list[tuple[str, list[int]]]:
    """Returns the words of tokens (the last of which is the end) with their tokens: parted at
    blanks and around punctuation, or where a language has none, at whole characters."""
    characters = _split_characters(model, tokens)
    if language in SPACELESS:
        return characters
    words: list[tuple[str, list[int]]] = []
    for text, part in characters:
        special = part[0] >= model.config.layout.end
        alone = special or text.startswith(" ") or text.strip() in string.punctuation
        if alone or not words:
            words.append((text, part))
        else:
            words[-1] = (words[-1][0] + text, words[-1][1] + part)
    return words


def _split_characters(model: Any, tokens: list[int]) -> list[tuple[str, list[int]]]:
    """Returns the shortest runs of tokens that end no character in the middle."""
    broken = "\ufffd"
    whole = model.tokenizer.decode(tokens)
    found: list[tuple[str, list[int]]] = []
    part: list[int] = []
    place = 0
    for token in tokens:
        part.append(token)
        text = model.tokenizer.decode(part)
        # bytes that are no character in the whole text either will not become one
        if broken not in text or whole[place + text.index(broken)] == broken:
            found.append((text, part))
            part, place = [], place + len(text)
    return found


def merge_punctuation(words: list[Timing], prepended: str, appended: str) -> None:
    """Moves punctuation to the word that it belongs to, the one after or before; what is left of it
    has no text and no tokens."""
    following = len(words) - 1
    for index in range(len(words) - 2, -1, -1):
        word, after = words[index], words[following]
        if word.text.startswith(" ") and word.text.strip() in prepended:
            after.text, after.tokens = word.text + after.text, word.tokens + after.tokens
            word.text, word.tokens = "", []
        else:
            following = index
    previous = 0
    for index in range(1, len(words)):
        word, before = words[index], words[previous]
        if not before.text.endswith(" ") and word.text in appended:
            before.text, before.tokens = before.text + word.text, before.tokens + word.tokens
            word.text, word.tokens = "", []
        else:
            previous = index
