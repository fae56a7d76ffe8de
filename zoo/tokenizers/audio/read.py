"""What a person calls a sound, as samples: paths, bytes, files, arrays, tensors.

An array (c n) or (n c) has its channels on the shorter side; channels are averaged. Whole numbers
are scaled by their type to [-1, 1), floats are taken as they are.
"""

# n samples, c channels

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DataError
from zoo.tokenizers.audio.decoders import decoded
from zoo.tokenizers.audio.resample import resampled_blocks

__all__ = ["RATE", "as_list", "audio_blocks", "read_audio"]

RATE = 16_000  # Hz, what every speech model here is made for
BLOCK = 1 << 16  # samples of an array that are converted at a time
CHANNELS = 64  # more of them are rather two swapped axes


def as_list(sounds: Any) -> tuple[list[Any], bool]:
    """Returns (sounds, whether several were given). A list is several, (array, rate) is one, and so
    is an array, whose second axis is channels."""
    if _with_rate(sounds):
        return [sounds], False
    if isinstance(sounds, Sequence) and not isinstance(sounds, (str, bytes, bytearray)):
        return list(sounds), True
    return [sounds], False


def read_audio(source: Any, rate: int = RATE) -> Tensor:
    """Returns the samples (n) of a sound, float32, one channel, `rate` per second.

    Args:
        source: a path, bytes, a file object, an array or tensor at `rate` already, or
            (array, its rate).
    Raises: DataError in one sentence for what is no sound, damaged, empty, or not finite.
    """
    return torch.cat(list(audio_blocks(source, rate)))


def audio_blocks(source: Any, rate: int = RATE, seconds: float = 30.0) -> Iterator[Tensor]:
    """Yields the samples that `read_audio` gives in blocks of `seconds`, the last one shorter; a
    file is read as its blocks are asked for."""
    size = max(int(seconds * rate), 1)
    with ExitStack() as stack:
        old, parts, name = _opened(source, rate, stack)
        held: list[Tensor] = []
        count = total = 0
        for part in resampled_blocks(_mono(parts, name), old, rate):
            held.append(part)
            count += part.shape[0]
            total += part.shape[0]
            while count >= size:
                block = torch.cat(held)
                yield block[:size]
                held, count = [block[size:]], count - size
        if total == 0:
            raise DataError(f"{name} holds no samples.")
        if count:
            yield torch.cat(held)


def _opened(source: Any, rate: int, stack: ExitStack) -> tuple[int, Iterator[np.ndarray], str]:
    """Returns (rate, blocks (n c), what errors call it)."""
    if _with_rate(source):
        array, own = source
        return _checked_rate(own), _from_array(array), "The sound"
    if isinstance(source, (np.ndarray, Tensor)):
        return rate, _from_array(source), "The sound"
    file, name = _as_file(source, stack)
    old, blocks = decoded(file, name, rate)
    return _checked_rate(old), blocks, name


def _with_rate(source: Any) -> bool:
    return (
        isinstance(source, (tuple, list))
        and len(source) == 2
        and isinstance(source[0], (np.ndarray, Tensor))
        and isinstance(source[1], (int, float, np.number))
    )


def _checked_rate(rate: Any) -> int:
    if not 100 <= rate <= 10_000_000 or rate != int(rate):
        raise DataError(f"A sampling rate is a whole number of Hz, not {rate}.")
    return int(rate)


def _as_file(source: Any, stack: ExitStack) -> tuple[BinaryIO, str]:
    """Returns (a seekable file, what errors call it)."""
    if isinstance(source, (bytes, bytearray)):
        return io.BytesIO(source), "The sound"
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        name = name if isinstance(name, str) else "The sound"
        if not (hasattr(source, "seekable") and source.seekable()):
            source = io.BytesIO(source.read())
        return source, name
    if not isinstance(source, (str, os.PathLike)):
        raise DataError(
            "A sound is a path, bytes, a file, an array or (array, rate), "
            f"not {type(source).__name__}."
        )
    name = os.fsdecode(source)
    path = Path(name)
    if "\0" in name or not path.exists():
        raise DataError(f"{name}: no such file.")
    if not path.is_file():
        raise DataError(f"{name} is no file.")
    try:
        return stack.enter_context(path.open("rb")), name
    except OSError as error:
        raise DataError(f"{name} cannot be opened: {error.strerror}.") from None


def _from_array(source: Any) -> Iterator[np.ndarray]:
    """Yields (n c) float32 in blocks, so that hours of other numbers are never there twice.

    Raises: DataError for what is no array of one or two axes, or holds no numbers.
    """
    array = source.detach().cpu() if isinstance(source, Tensor) else source
    if isinstance(array, Tensor):
        array = array.float().numpy() if array.dtype == torch.bfloat16 else array.numpy()
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or min(array.shape) > CHANNELS:
        raise DataError(
            f"A sound is an array (samples) or (channels, samples), not {tuple(array.shape)}."
        )
    if 0 < array.shape[0] < array.shape[1]:
        array = array.T
    zero, full = 0, 1.0
    if np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(array.dtype)
        full = limits.max + 1
        if limits.min == 0:  # unsigned samples swing around the middle
            zero = full = limits.max // 2 + 1
    elif not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"Samples are numbers, not {array.dtype}.")
    for start in range(0, len(array), BLOCK):
        block = array[start : start + BLOCK]
        if np.issubdtype(array.dtype, np.integer):
            block = (block.astype(np.float64) - zero) / full
        yield block.astype(np.float32)


def _mono(blocks: Iterator[np.ndarray], name: str) -> Iterator[Tensor]:  # (n c) -> n
    for block in blocks:
        samples = torch.from_numpy(np.ascontiguousarray(block))
        samples = samples[:, 0] if samples.shape[1] == 1 else samples.mean(1)
        if not torch.isfinite(samples).all():
            raise DataError(f"{name} holds NaN or infinite samples.")
        yield samples
