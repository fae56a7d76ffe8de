"""Random numbers that are functions: of a seed, a position and a place, never of what was drawn
before.

The order of the data, augmentations and mixing draw from here, so that any worker, thread or
process can make any sample of any step by itself, and one process, many, or a resumed run make the
same ones. The mixing function is splitmix64 (Steele, Lea and Flood 2014), in 64-bit integers that
wrap, on whatever device its input is.
"""

# b samples, k numbers for each

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fold", "mix", "normal", "permute", "seeds_of", "uniform"]

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number
_FIRST = -4658895280553007687  # 0xBF58476D1CE4E5B9
_SECOND = -7723592293110705685  # 0x94D049BB133111EB
_ROUNDS = 6  # of the Feistel network; four are indistinguishable from random, two are for luck


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shifts right and fills with zeros (`>>` of a signed number would fill with its sign)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """Returns 64 well mixed bits of each whole number (int64, any shape)."""
    x = x + _GOLDEN
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def fold(*numbers: int) -> int:
    """Returns one seed (0 <= seed < 2^63) of several whole numbers, such as (seed, step, rank)."""
    state = torch.zeros((), dtype=torch.int64)
    for number in numbers:
        state = mix(state ^ torch.tensor(_wrapped(number)))
    return int(state) & (2**63 - 1)


def _wrapped(number: int) -> int:
    number &= 2**64 - 1
    return number - 2**64 if number >= 2**63 else number


def seeds_of(seed: int, positions: Tensor) -> Tensor:  # b -> b
    """Returns a seed for every position (int64) of an endless sequence."""
    return mix(mix(positions) ^ _wrapped(fold(seed, 1)))


def uniform(seeds: Tensor, count: int, stream: int = 0) -> Tensor:  # b -> b count
    """Returns `count` numbers in [0, 1) for every seed; another `stream` gives others."""
    offsets = torch.arange(1, count + 1, device=seeds.device) + (stream << 32)
    bits = mix(seeds[:, None] + offsets * _GOLDEN)
    # 24 bits are what fp32 holds exactly, so no number rounds up to 1
    return _shift(bits, 40).to(torch.float32) * 2.0**-24


def normal(seeds: Tensor, count: int, stream: int = 0) -> Tensor:  # b -> b count
    """Returns `count` standard normal numbers for every seed (Box and Muller)."""
    radius, angle = uniform(seeds, 2 * count, stream).chunk(2, dim=1)
    return (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * torch.pi * angle)


def permute(indices: Tensor, length: int, seed: int) -> Tensor:  # b -> b
    """Returns where a random permutation of range(length) sends each index, without making the
    permutation.

    A Feistel network over the smallest even number of bits that holds `length`; what lands outside
    walks on until it is inside (Black and Rogaway 2002, cycle walking). Any index costs the same,
    and nothing is stored.
    """
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    keys = [_wrapped(fold(seed, 2, round)) for round in range(_ROUNDS)]

    def network(x: Tensor) -> Tensor:
        left, right = x >> half, x & low
        for key in keys:
            left, right = right, left ^ (mix(right ^ key) & low)
        return (left << half) | right

    x = network(indices)
    while bool((outside := x >= length).any()):
        x = torch.where(outside, network(x), x)
    return x
