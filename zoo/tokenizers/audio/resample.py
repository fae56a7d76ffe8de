"""Another sampling rate, by torchaudio's windowed sinc, whole or block by block with equal
results."""

# n samples

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from zoo.errors import DataError

__all__ = ["resampled", "resampled_blocks"]

# torchaudio's filter has old * new / gcd^2 numbers: 44,101 Hz to 16,000 would take 3 GB. A ratio of
# smaller numbers is off by less than 1e-6, a millisecond in half an hour.
LARGEST = 1000
ZEROS = 6  # zero crossings on each side of the filter, torchaudio's default


@lru_cache(maxsize=16)
def _filter(old: int, new: int) -> tuple[int, int, Any]:
    """Returns (old and new steps of the ratio, torchaudio's module with the filter in it)."""
    ratio = Fraction(new, old)
    if max(ratio.numerator, ratio.denominator) > LARGEST:
        ratio = ratio.limit_denominator(LARGEST)
    if not 0 < ratio.numerator <= LARGEST:
        raise DataError(f"A sampling rate of {old} Hz is too far from {new} Hz.")
    try:
        from torchaudio.transforms import Resample
    except (ImportError, OSError) as error:  # OSError: built for another torch
        clue = (str(error).strip().splitlines() or [""])[0][:100]
        raise DataError(
            f"A sound of {old} Hz needs torchaudio to become one of {new} Hz, and it does not "
            f"load ({clue}): pip install torchaudio, of the version that fits torch."
        ) from None
    module = Resample(ratio.denominator, ratio.numerator, lowpass_filter_width=ZEROS)
    return ratio.denominator, ratio.numerator, module


def resampled(samples: Tensor, old: int, new: int) -> Tensor:  # n -> n'
    """Returns the samples at another rate, ceil(n new / old) of them."""
    return samples if old == new else _filter(old, new)[2](samples)


def resampled_blocks(blocks: Iterable[Tensor], old: int, new: int) -> Iterator[Tensor]:
    """Yields what `resampled` of all blocks together gives, in blocks, as soon as it is known.

    Each stretch is computed with its neighbours on both sides, which the filter looks at; what they
    themselves become is thrown away.
    """
    if old == new:
        yield from blocks
        return
    down, up, module = _filter(old, new)
    # samples that the filter reaches to either side, in whole steps of the ratio
    reach = (-(-ZEROS * down // min(down, up)) // down + 2) * down
    held = torch.zeros(0)  # the past that is still looked at, and what is not done yet
    past = 0  # how much of it is past
    for block in blocks:
        held = torch.cat([held, block])
        ready = (held.shape[0] - past - reach) // down * down
        if ready <= 0:
            continue
        out = module(held[: past + ready + reach])
        yield out[past // down * up : (past + ready) // down * up]
        keep = min(past + ready, reach)
        held, past = held[past + ready - keep :], keep
    if held.shape[0] > past:
        yield module(held)[past // down * up :]
