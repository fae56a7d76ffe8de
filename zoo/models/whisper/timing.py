"""Words put into their segments, and their times mended where attention strays."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import Any

import numpy as np
from torch import Tensor

from zoo.models.whisper.options import SpeechOptions
from zoo.models.whisper.pieces import Piece, Timed
from zoo.models.whisper.words import Timing, align, merge_punctuation

__all__ = ["time_words"]

ENDS = ".。!！?？"  # that end a sentence
MOST = 0.7  # seconds that a usual word takes at most


def time_words(
    model: Any,
    memory: Tensor,  # 1 s d
    pieces: list[Piece],
    prompt: list[int],
    size: int,
    offset: float,
    last: float,
    language: str | None,
    options: SpeechOptions,
) -> None:
    """Gives the segments of a window their words, and mends the times of both.

    Args:
        size: frames of the window that are sound.
        offset: second at which the window begins.
        last: second at which the last word before it ended.
    """
    sound, end = model.config.sound, model.config.layout.end
    texts = [[token for token in piece.tokens if token < end] for piece in pieces]
    frames = size // (sound.frames // sound.positions)
    words = align(model, memory, prompt, list(chain(*texts)), frames, language)
    usual = _usual(words)
    _shorten_at_sentences(words, 2 * usual)
    merge_punctuation(words, options.prepended, options.appended)
    index = 0
    for piece, text in zip(pieces, texts, strict=True):
        taken = 0
        while index < len(words) and taken < len(text):
            word = words[index]
            if word.text:
                start, stop = (float(round(offset + t, 2)) for t in (word.start, word.stop))
                piece.words.append(Timed(word.text, start, stop, word.probability))
            taken += len(word.tokens)
            index += 1
        if piece.words:
            _mend_edges(piece, usual, last)
            last = piece.stop


def _usual(words: list[Timing]) -> float:
    """Returns how long a word takes: the median, but no longer than MOST."""
    lengths = [word.stop - word.start for word in words if word.stop != word.start]
    return min(MOST, float(np.median(lengths))) if lengths else 0.0


def _shorten_at_sentences(words: list[Timing], longest: float) -> None:
    """A pause between sentences goes to the full stop or the first word, which is cut."""
    if not any(word.stop != word.start for word in words):
        return
    for before, word in pairwise(words):
        if word.stop - word.start > longest:
            if word.text in ENDS:
                word.stop = word.start + longest
            elif before.text in ENDS:
                word.start = word.stop - longest


def _mend_edges(piece: Piece, usual: float, last: float) -> None:
    """Cuts the first two words after a pause, and lets segment and words agree at both ends."""
    words, longest = piece.words, 2 * usual
    first, final = words[0], words[-1]
    second = words[1] if len(words) > 1 else None
    long = first.stop - first.start > longest
    long = long or (second is not None and second.stop - first.start > 2 * longest)
    if first.stop - last > 4 * usual and long:
        if second is not None and second.stop - second.start > longest:
            first.stop = second.start = max(second.stop / 2, second.stop - longest)
        first.start = max(0, first.stop - longest)
    if piece.start < first.stop and piece.start - 0.5 > first.start:
        first.start = max(0, min(first.stop - usual, piece.start))
    else:
        piece.start = first.start
    if piece.stop > final.start and piece.stop + 0.5 < final.stop:
        final.stop = max(final.start + usual, piece.stop)
    else:
        piece.stop = final.stop
