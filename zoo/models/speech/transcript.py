"""What recognisers answer: a text, its words with times, in segments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Segment", "Transcript", "Word", "segments_of"]

PAUSE = 0.8  # seconds between two words that begin a new segment
LONGEST = 15.0  # seconds that a segment may take before any pause begins a new one


@dataclass(frozen=True)
class Word:
    """One word; times are seconds from the start of the sound."""

    text: str
    start: float
    stop: float
    probability: float

    def __str__(self) -> str:
        return f"{self.start:7.2f} {self.stop:7.2f}  {self.text}"


@dataclass(frozen=True)
class Segment:
    """A stretch of speech between pauses."""

    text: str
    start: float
    stop: float
    words: tuple[Word, ...] = ()
    tokens: tuple[int, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)  # of the stretch, as a model gives them


@dataclass(frozen=True)
class Transcript:
    """What was said in one sound."""

    text: str
    seconds: float  # length of the sound
    segments: tuple[Segment, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)  # of the whole, as a model gives them
    language: str | None = None  # that was spoken, where the model tells

    @property
    def words(self) -> list[Word]:
        """The words of all segments."""
        return [word for segment in self.segments for word in segment.words]

    def to_mapping(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        segments = [
            {
                **{
                    k: v for k, v in vars(segment).items() if k not in ("words", "tokens", "scores")
                },
                "words": [dict(vars(word)) for word in segment.words],
                **({"tokens": list(segment.tokens)} if segment.tokens else {}),
                **segment.scores,
            }
            for segment in self.segments
        ]
        said = {} if self.language is None else {"language": self.language}
        plain = {"text": self.text, "seconds": self.seconds, **said, "segments": segments}
        return {**plain, **self.scores}

    def __str__(self) -> str:
        return self.text


def segments_of(words: Iterable[Word]) -> tuple[Segment, ...]:
    """Returns words in segments, parted where nothing is said for a while."""
    groups: list[list[Word]] = []
    for word in words:
        last = groups[-1] if groups else None
        if last is not None:
            pause, length = word.start - last[-1].stop, word.stop - last[0].start
            if pause < (PAUSE if length < LONGEST else PAUSE / 4):
                last.append(word)
                continue
        groups.append([word])
    return tuple(
        Segment(" ".join(word.text for word in group), group[0].start, group[-1].stop, tuple(group))
        for group in groups
    )
