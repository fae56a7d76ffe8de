"""SentencePiece's own unigram segmentation, to the last bit.

Models whose reference is the SentencePiece library itself (Marian) are cut by this walk instead of
the `tokenizers` library: that one normalises by grapheme instead of longest rule and adds scores in
double precision, which decides ties in long runs differently. Follows unigram_model.cc
(EncodeOptimized) and normalizer.cc of google/sentencepiece.
"""

from __future__ import annotations

import struct

import numpy as np

from zoo.errors import DataError
from zoo.tokenizers.text.sentencepiece import (
    BYTE,
    MARK,
    NORMAL,
    UNUSED,
    USER,
    SentencePieceModel,
)

__all__ = ["ExactUnigram"]

_UNKNOWN_PENALTY = 10.0
_LONGEST = 16  # characters that a rule may take; the longest one that SentencePiece ships takes 4


class ExactUnigram:
    """Text to the ids of a SentencePiece unigram model."""

    def __init__(self, model: SentencePieceModel) -> None:
        if any(piece.type == USER for piece in model.pieces):
            raise DataError("A SentencePiece model with symbols of its users is not cut exactly.")
        self.model = model
        self._rules = _Charsmap(model.charsmap) if model.charsmap else None
        pieces = list(enumerate(model.pieces))
        self._ids = {p.text: n for n, p in pieces if p.type == NORMAL}
        unused = {p.text for _, p in pieces if p.type == UNUSED}
        self._scores = [
            np.float32(piece.score) for piece in model.pieces
        ]  # sums in single precision
        lowest = min((self._scores[n] for n, p in pieces if p.type == NORMAL), default=0.0)
        self._unknown = np.float32(lowest) - np.float32(_UNKNOWN_PENALTY)
        self._bytes = [n for n, p in pieces if p.type == BYTE] if model.byte_fallback else []
        # every beginning of a piece, so that the walk stops where no piece goes on
        texts = [*self._ids, *unused]
        self._beginnings = {text[:size] for text in texts for size in range(1, len(text) + 1)}

    def ids(self, text: str) -> list[int]:
        """Returns the ids of the most probable cut; a run of unknown characters is one unknown
        token."""
        found: list[int] = []
        for number, piece in self.pieces(text):
            if number == self.model.unk_id and self._bytes:
                found += [self._bytes[byte] for byte in piece.encode()]
            else:
                found.append(number)
        return found

    def pieces(self, text: str) -> list[tuple[int, str]]:
        """Returns (id, spelling) of each piece; that of an unknown one is the text itself."""
        text = self.normalize(text)
        found: list[tuple[int, str]] = []
        for number, start, end in self._cut(text):
            if found and number == found[-1][0] == self.model.unk_id:
                found[-1] = number, found[-1][1] + text[start:end]
            else:
                found.append((number, text[start:end]))
        return found

    def normalize(self, text: str) -> str:
        """Returns the text that is cut: rules applied, blanks as ▁."""
        model, out = self.model, []
        spaced = model.remove_extra_spaces
        place = 0
        previous = spaced
        while place < len(text):
            piece, size = self._rules.at(text, place) if self._rules else (text[place], 1)
            place += size
            while previous and piece.startswith(" "):
                piece = piece[1:]
            if piece:
                out.append(piece.replace(" ", MARK))
                previous = piece.endswith(" ")
            if not spaced:
                previous = False
        prefix = MARK if model.dummy_prefix and text else ""
        found = prefix + "".join(out)
        return found.rstrip(MARK) if spaced else found

    def _cut(self, text: str) -> list[tuple[int, int, int]]:
        """Returns (id, start, end) of each piece of a normalised text."""
        size, unknown = len(text), self.model.unk_id
        best = [np.float32(0)] * (size + 1)  # score of the best cut up to here
        start = [-1] * (size + 1)
        last = [unknown] * (size + 1)
        ids, beginnings, scores = self._ids, self._beginnings, self._scores
        for place in range(size):
            here, alone = best[place], False
            for end in range(place + 1, size + 1):
                piece = text[place:end]
                if piece not in beginnings:
                    break
                number = ids.get(piece)
                if number is None:
                    continue
                score = scores[number] + here
                if start[end] < 0 or score > best[end]:
                    best[end], start[end], last[end] = score, place, number
                alone = alone or end == place + 1
            if not alone:
                score, end = self._unknown + here, place + 1
                if start[end] < 0 or score > best[end]:
                    best[end], start[end], last[end] = score, place, unknown
        found = []
        while size > 0:
            found.append((last[size], start[size], size))
            size = start[size]
        return found[::-1]


class _Charsmap:
    """Compiled normalisation rules: a double-array trie (darts-clone) over UTF-8, and the texts it
    leads to."""

    def __init__(self, data: bytes) -> None:
        try:
            (size,) = struct.unpack_from("<I", data)
            self._units = struct.unpack_from(f"<{size // 4}I", data, 4)
        except struct.error:
            raise DataError("The SentencePiece model's normalisation rules are broken.") from None
        self._texts = data[4 + size :]
        self._known: dict[str, tuple[str, int]] = {}

    def at(self, text: str, place: int) -> tuple[str, int]:
        """Returns (what the longest rule at a place makes, how many characters it takes)."""
        ahead = text[place : place + _LONGEST]
        found = self._known.get(ahead)
        if found is None:
            if len(self._known) > 100_000:
                self._known.clear()
            found = self._known[ahead] = self._find(ahead)
        return found

    def _find(self, text: str) -> tuple[str, int]:
        units, data = self._units, text.encode()
        node = _offset(units[0])
        found: tuple[int, int] | None = None
        for place, byte in enumerate(data):
            node ^= byte
            if node >= len(units):
                break
            unit = units[node]
            if unit & 0x800000FF != byte:
                break
            node ^= _offset(unit)
            if unit >> 8 & 1:
                found = place + 1, units[node] & 0x7FFFFFFF
        if found is None:
            return text[0], 1
        size, value = found
        end = self._texts.index(0, value)
        return self._texts[value:end].decode("utf-8"), len(data[:size].decode("utf-8"))


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & (1 << 9)) >> 6)
