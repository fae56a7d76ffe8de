"""Sounds cut into pieces that are encoded alone, so that hours need no more memory than minutes."""

# n tokens of sound

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.tokenizers.audio.read import audio_blocks

__all__ = ["Heard", "Piece", "batches", "grouped", "pieces"]

CONTEXT = 5.0  # seconds before and after a piece that are encoded with it and then left out


@dataclass
class Piece:
    """A stretch of a sound, and which of its tokens count."""

    sound: int
    samples: Tensor
    new: int  # samples that are its own
    before: int  # tokens of context at its start
    count: int | None  # tokens that count; None: all that follow, it is the sound's last piece

    @property
    def peak(self) -> float:
        """How loud it gets."""
        return float(self.samples.abs().max())


@dataclass
class Heard:
    """What decoding reads of a piece."""

    sound: int
    scores: Tensor  # n …
    samples: int  # that the piece is long
    peak: float  # how loud it gets
    last: bool  # whether the sound ends with it


def pieces(sounds: list[Any], rate: int, period: int, window: float | None) -> Iterator[Piece]:
    """Yields the pieces of sounds one after another, reading them as it goes.

    Args:
        period: samples of a token.
        window: seconds of a piece; None takes each sound whole.
    """
    for index, sound in enumerate(sounds):
        if window is None:
            samples = torch.cat(list(audio_blocks(sound, rate)))
            yield Piece(index, samples, len(samples), 0, None)
        else:
            yield from _cut(index, sound, rate, period, window)


def _cut(index: int, sound: Any, rate: int, period: int, window: float) -> Iterator[Piece]:
    count = max(1, round(window * rate / period))  # tokens of a piece
    around = round(CONTEXT * rate / period)
    blocks = audio_blocks(sound, rate, count * period / rate)
    before = torch.zeros(0)
    block: Tensor | None = next(blocks)
    while block is not None:
        following = next(blocks, None)
        after = torch.zeros(0) if following is None else following[: around * period]
        if following is not None and len(following) <= around * period:
            block, after, following = torch.cat([block, following]), torch.zeros(0), None
        samples = torch.cat([before, block, after])
        tokens = None if following is None else len(block) // period
        yield Piece(index, samples, len(block), len(before) // period, tokens)
        before = block[-around * period :]
        block = following


def batches(
    pieces: Iterable[Piece], count: int, rate: int, window: float | None
) -> Iterator[list[Piece]]:
    """Yields neighbours that are encoded at once: no more than `count`, which with what fills them
    up are no longer than the longest piece of a window may be."""
    most = math.inf if window is None else (window + 3 * CONTEXT) * rate
    batch: list[Piece] = []
    for piece in pieces:
        longest = max(len(one.samples) for one in [*batch, piece])
        if len(batch) == count or (batch and (len(batch) + 1) * longest > most):
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def grouped(heard: Iterable[Heard], most: float) -> Iterator[list[Heard]]:
    """Yields neighbours that are decoded together: that have no more than `most` tokens, or are
    one."""
    group: list[Heard] = []
    tokens = 0
    for one in heard:
        if group and tokens + len(one.scores) > most:
            yield group
            group, tokens = [], 0
        group.append(one)
        tokens += len(one.scores)
    if group:
        yield group
