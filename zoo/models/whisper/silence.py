"""Words heard where nothing was said: improbable ones, too short or too long, around a pause."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.models.whisper.pieces import Piece, Timed

if TYPE_CHECKING:
    from zoo.models.whisper.longform import LongForm

__all__ = ["skip_silence", "strange"]

LOOKED_AT = 8  # words of a segment


def oddness(word: Timed) -> float:
    """Returns how unlike speech a word is: improbable, under 0.133 s, over 2 s."""
    length = word.stop - word.start
    score = 1.0 if word.probability < 0.15 else 0.0
    score += (0.133 - length) * 15 if length < 0.133 else 0.0
    return score + (length - 2.0 if length > 2.0 else 0.0)


def strange(piece: Piece | None, punctuation: str) -> bool:
    """Returns whether a segment is rather imagined than heard."""
    if piece is None or not piece.words:
        return False
    words = [word for word in piece.words if word.text not in punctuation][:LOOKED_AT]
    score = sum(oddness(word) for word in words)
    return score >= 3 or score + 0.01 >= len(words)


def _with_words(pieces: Sequence[Piece]) -> Piece | None:
    return next((piece for piece in pieces if piece.words), None)


def skip_silence(
    state: LongForm, pieces: list[Piece], seek: int, size: int, closed: bool, longest: float
) -> list[Piece] | None:
    """Returns the segments that are kept and moves `state.seek`; None when the window is to begin
    again behind a silence.

    `seek` and `size` are the window's, `longest` is the pause in seconds that is suspicious.
    """
    rate = state.rate
    punctuation = state.options.prepended + state.options.appended
    start, window_end = seek / rate, (seek + state.sound.frames) / rate
    if not closed:
        last = next((w.stop for p in reversed(pieces) for w in reversed(p.words)), None)
        last = last if last is not None else (pieces[-1].stop if pieces else None)
        if last is not None and last > start:
            state.seek = round(last * rate) if window_end - last > longest else seek + size
    first = _with_words(pieces)
    if first is not None and strange(first, punctuation):
        gap = first.start - start
        if gap > longest:
            state.seek = seek + round(gap * rate)
            return None
    before = state.last_word
    for index, piece in enumerate(pieces):
        if not piece.words:
            continue
        if strange(piece, punctuation):
            after = _with_words(pieces[index + 1 :])
            next_start = after.words[0].start if after is not None else start + size / rate
            silent_before = (
                piece.start - before > longest or piece.start < longest or piece.start - start < 2.0
            )
            silent_after = (
                next_start - piece.stop > longest
                or strange(after, punctuation)
                or window_end - piece.stop < 2.0
            )
            if silent_before and silent_after:
                state.seek = round(max(start + 1, piece.start) * rate)
                if state.seconds - piece.stop < longest:
                    state.seek = state.content
                return pieces[:index]
        before = piece.stop
    return pieces
