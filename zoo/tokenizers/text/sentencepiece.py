"""Reading SentencePiece model files.

The file is a protocol buffer of which we need a dozen fields, so the wire format is read here (its
description: protobuf.dev/programming-guides/encoding, sentencepiece_model.proto) instead of asking
for two packages.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import DataError

__all__ = ["MARK", "Piece", "SentencePieceModel", "merges_of", "read_model"]

MARK = "\u2581"  # stands for a blank inside pieces
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
_ALGORITHMS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its id is its place."""

    text: str
    score: float
    type: int


@dataclass
class SentencePieceModel:
    """What a .model or .spm file says."""

    pieces: list[Piece] = field(default_factory=list)
    algorithm: str = "unigram"
    byte_fallback: bool = False
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = -1
    charsmap: bytes = b""  # compiled normalisation rules
    dummy_prefix: bool = True
    remove_extra_spaces: bool = True

    def charsmap_text(self) -> str:
        """The rules as tokenizer.json holds them."""
        return base64.b64encode(self.charsmap).decode()

    def token(self, number: int) -> str | None:
        """Returns the piece of an id, None for -1."""
        return self.pieces[number].text if 0 <= number < len(self.pieces) else None


def read_model(path: Path) -> SentencePieceModel:
    """Returns the content of a SentencePiece model file; raises DataError when it is none."""
    data = path.read_bytes()
    model = SentencePieceModel()
    try:
        for number, value in _fields(data):
            if number == 1:
                model.pieces.append(_piece(value))
            elif number == 2:
                _trainer(model, value)
            elif number == 3:
                _normalizer(model, value)
    except (ValueError, TypeError, IndexError, struct.error, KeyError):
        raise DataError(f"{path} is no SentencePiece model.") from None
    if not model.pieces or not 0 <= model.unk_id < len(model.pieces):
        raise DataError(f"{path} is no SentencePiece model.")
    return model


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yields (field number, value): an int for varints, bytes for everything else."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            size, place = _varint(data, place)
        if size is None or place + size > len(data):
            raise ValueError("not a protocol buffer")
        yield key >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("not a protocol buffer")


def _piece(data: bytes) -> Piece:
    text, score, kind = "", 0.0, NORMAL
    for number, value in _fields(data):
        if number == 1:
            text = value.decode("utf-8")
        elif number == 2:
            (score,) = struct.unpack("<f", value)
        elif number == 3:
            kind = value
    return Piece(text, score, kind)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _trainer(model: SentencePieceModel, data: bytes) -> None:
    for number, value in _fields(data):
        if number == 3:
            model.algorithm = _ALGORITHMS[value]
        elif number == 35:
            model.byte_fallback = bool(value)
        elif number in (40, 41, 42, 43):
            name = {40: "unk_id", 41: "bos_id", 42: "eos_id", 43: "pad_id"}[number]
            setattr(model, name, _signed(value))
        elif number == 24 and value:
            raise DataError("A SentencePiece model with blanks as suffixes is not supported.")


def _normalizer(model: SentencePieceModel, data: bytes) -> None:
    for number, value in _fields(data):
        if number == 2:
            model.charsmap = value
        elif number == 3:
            model.dummy_prefix = bool(value)
        elif number == 4:
            model.remove_extra_spaces = bool(value)
        elif number == 5 and not value:
            raise DataError(
                "A SentencePiece model with plain blanks in its pieces is not supported."
            )


def merges_of(model: SentencePieceModel) -> list[list[str]]:
    """Returns the merges that a BPE model implies: every split of a piece into two pieces, earlier
    pieces first."""
    order = {piece.text: place for place, piece in enumerate(model.pieces)}
    found = []
    for place, piece in enumerate(model.pieces):
        if piece.type not in (NORMAL, USER, UNUSED):
            continue
        splits = [(piece.text[:cut], piece.text[cut:]) for cut in range(1, len(piece.text))]
        known = [(a, b) for a, b in splits if a in order and b in order]
        known.sort(key=lambda pair: (order[pair[0]], order[pair[1]]))
        found += [(place, len(a), len(b), a, b) for a, b in known]
    found.sort(key=lambda entry: entry[:3])
    return [[a, b] for *_, a, b in found]
