"""A window's text cut into segments where two times meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from zoo.models.speech.transcript import Segment, Word
from zoo.models.whisper.decode import Hypothesis
from zoo.models.whisper.layout import Layout
from zoo.tokenizers.audio.schema import LogMelConfig

__all__ = ["Piece", "Timed", "cut"]


@dataclass
class Timed:
    """A word whose times may still be mended; seconds from the start of the sound."""

    text: str
    start: float
    stop: float
    probability: float


@dataclass
class Piece:
    """A segment in the making."""

    start: float  # seconds from the start of the sound
    stop: float
    tokens: list[int]
    text: str
    words: list[Timed] = field(default_factory=list)

    def segment(self, found: Hypothesis) -> Segment:
        """Returns the finished segment, with what is known of its window."""
        scores = {
            "log_probability": found.log_probability,
            "no_speech": found.no_speech,
            "compression": found.compression,
            "temperature": found.temperature,
        }
        words = tuple(Word(w.text, w.start, w.stop, w.probability) for w in self.words)
        return Segment(self.text, self.start, self.stop, words, tuple(self.tokens), scores)


def cut(
    found: Hypothesis,
    seek: int,
    size: int,
    layout: Layout,
    sound: LogMelConfig,
    text_of: Callable[[list[int]], str],
) -> tuple[list[Piece], int, bool]:
    """Returns (segments, the frame where the next window begins, whether the text ended with a
    single time, after which nothing is said).

    `seek` is the window's first frame and `size` how many of its frames are sound.
    """
    tokens, first = found.tokens, layout.first_time
    rate = sound.rate / sound.hop
    per_time = sound.frames // sound.positions  # frames of a step of the encoder
    step = per_time * sound.hop / sound.rate  # seconds of it
    offset = seek / rate
    is_time = [token >= first for token in tokens]
    closed = is_time[-2:] == [False, True]

    def piece(part: list[int], start: float, stop: float) -> Piece:
        return Piece(start, stop, part, text_of(part))

    ends = [i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i]]
    if not ends:  # one segment, to the last time if there is one
        times = [token - first for token in tokens if token >= first]
        length = times[-1] * step if times and times[-1] > 0 else size / rate
        return [piece(tokens, offset, offset + length)], seek + size, closed
    if closed:
        ends.append(len(tokens))
    pieces = []
    for start, stop in zip([0, *ends], ends):
        part = tokens[start:stop]
        begin, end = (offset + (part[place] - first) * step for place in (0, -1))
        pieces.append(piece(part, begin, end))
    if closed:
        return pieces, seek + size, closed
    # what follows the last complete segment is heard again, from its end
    return pieces, seek + (tokens[ends[-1] - 1] - first) * per_time, closed
