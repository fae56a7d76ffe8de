"""The text of an answer while its tokens arrive: never half a character, nothing taken back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

__all__ = ["Decoder", "Pieces", "cut"]


class Decoder(Protocol):
    """What turns tokens into text, one at a time (`zoo.tokenizers.text.decoding.StreamDecoder`)."""

    def feed(self, tokens: int) -> str:
        """Returns the text that one more token makes certain."""

    def end(self) -> str:
        """Returns what was still held back."""


def cut(text: str, stops: Sequence[str]) -> str:
    """Returns the text up to the first of the stop strings."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text


class Pieces:
    """Hands out what can no longer change: what may be the beginning of a stop string waits.

    `over` says that an end token or a stop string was met; neither is part of the text.
    """

    def __init__(
        self, decoder: Decoder, stops: Sequence[str] = (), ends: Collection[int] = ()
    ) -> None:
        self.decoder, self.stops, self.ends = decoder, [s for s in stops if s], ends
        self.waiting, self.over = "", False

    def feed(self, token: int) -> str:
        """Returns the text that one more token makes final; often nothing."""
        if token in self.ends:
            return self.end()
        return self._release(self.decoder.feed(token))

    def end(self) -> str:
        """Returns the rest; nothing follows."""
        if self.over:
            return ""
        text = self._release(self.decoder.end())
        if not self.over:
            text, self.waiting, self.over = text + self.waiting, "", True
        return text

    def _release(self, new: str) -> str:
        text = self.waiting + new
        ready = cut(text, self.stops)
        if len(ready) < len(text):
            self.waiting, self.over = "", True
            return ready
        held = max((_begun(text, stop) for stop in self.stops), default=0)
        self.waiting = text[len(text) - held :]
        return text[: len(text) - held]


def _begun(text: str, stop: str) -> int:
    """Returns how many characters at the end of a text may be the beginning of a stop string."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
