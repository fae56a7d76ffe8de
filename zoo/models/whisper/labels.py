"""What a window of known speech should be written as: text between the times it begins and ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zoo.models.whisper.layout import Layout

__all__ = ["timed_tokens"]


def timed_tokens(
    layout: Layout,
    segments: Iterable[tuple[float, float, Sequence[int]]],
    seconds: float,
) -> list[int]:
    """Returns the tokens that follow a prompt with times, the end among them.

    Segments are (start, stop, text tokens), in seconds from the window's start, in order. One that
    goes on past the window of `seconds` is written as its start alone: its text belongs to the next
    window, which begins there.
    """
    step = seconds / layout.positions

    def time(at: float) -> int:
        return layout.first_time + round(min(max(at, 0.0), seconds) / step)

    tokens: list[int] = []
    for start, stop, text in segments:
        if start >= seconds:
            break
        if stop > seconds:
            tokens.append(time(start))
            break
        tokens += [time(start), *text, time(stop)]
    return [*tokens, layout.end]
