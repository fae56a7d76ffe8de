"""Handwritten digits that move, with captions: text-to-video that fits in minutes.

A scan of 16 x 16 pixels crosses a black picture of 32 x 32, always whole: "a three moving left".
Where it starts is drawn at random within the room that its way leaves, and is a function of the
sample's seed in training and of its number when held out.
"""

# b batch, t frames, h w pixels

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.base import Batch
from zoo.data.colour_digits import WORDS
from zoo.data.digits import load_digits
from zoo.data.draw import seeds_of, uniform
from zoo.data.judge import centres, judge_clips

if TYPE_CHECKING:
    from zoo.data.schema import MovingDigitsConfig

__all__ = ["DIRECTIONS", "MovingDigitsData", "caption", "clips"]

DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}  # rows, columns
SIDE, DIGIT = 32, 16  # of the picture, of the scan in it
ROOM = SIDE - DIGIT  # the longest way
_STREAM = 24  # of random numbers


def caption(digit: int, direction: str) -> str:
    """Returns what such a clip is called, `"a three moving left"`."""
    return f"a {WORDS[digit]} moving {direction}"


def clips(
    scans: Tensor, directions: Tensor, places: Tensor, frames: int, step: int, grid: int = 1
) -> Tensor:  # b 16 16 in [0, 1], b, b 2 in [0, 1) -> b 1 t 32 32
    """Returns clips of scans that move `step` pixels a frame in directions (numbers of
    `DIRECTIONS`); `places` says where in the room that is left they start, in steps of `grid`
    pixels."""
    ways = torch.tensor(list(DIRECTIONS.values()))[directions] * step  # b 2, each frame
    whole = ways * (frames - 1)
    low = (-whole).clamp(min=0)  # the first corner must leave room for the way
    room = ROOM - whole.abs()
    start = low + (places * (room // grid + 1)).long() * grid
    corners = start[:, None] + ways[:, None] * torch.arange(frames)[None, :, None]  # b t 2
    rows, columns = (
        corners[..., axis, None] + torch.arange(DIGIT) for axis in (0, 1)
    )  # b t 16 each
    result = scans.new_zeros(len(scans), frames, SIDE, SIDE)
    sample = torch.arange(len(scans))[:, None, None, None]
    time = torch.arange(frames)[None, :, None, None]
    result[sample, time, rows[..., :, None], columns[..., None, :]] = scans[:, None]
    return result[:, None]


class MovingDigitsData:
    """`data=moving-digits`: 1437 scans in four directions to train on, 360 in four held out."""

    labels: list[str] = []

    def __init__(self, config: MovingDigitsConfig) -> None:
        self.config = config

    def split(self, name: str, model: Any = None) -> MovingDigits:
        """Returns `"train"` or `"test"`; the model is not asked, pixels are always in [0, 1]."""
        images, digits = load_digits(name)  # type: ignore[arg-type]
        scans = F.avg_pool2d(torch.from_numpy(images)[:, None].float() / 255, 2)[:, 0]
        return MovingDigits(self.config, scans, torch.from_numpy(digits))

    def judge(self, pixels: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Returns name -> (b) bool: what an independent reader makes of (generated) clips."""
        return judge_clips(pixels, batch["digits"], batch["directions"])

    def turn(self, pixels: Tensor, batch: Batch) -> Batch:
        """Returns what clips may be asked for next, as a batch for the judge: the same digits,
        moving across their way where there is room for (nearly) all of it, or else back."""
        corners = centres(pixels[:, :, -1]) - DIGIT / 2
        turned = []
        for way, corner in zip(batch["directions"].tolist(), corners.tolist(), strict=True):
            axis = 0 if way < 2 else 1  # rows, of those that moved along columns
            near = [corner[axis] > ROOM * 3 / 4, corner[axis] < ROOM / 4]  # the far edge, the near
            across = (2, 3) if way < 2 else (0, 1)
            turned.append(across[near.index(True)] if any(near) else way ^ 1)
        names = list(DIRECTIONS)
        digits = batch["digits"]
        words = zip(digits.tolist(), turned, strict=True)
        return {
            "captions": [caption(digit, names[way]) for digit, way in words],
            "digits": digits,
            "directions": torch.tensor(turned, device=digits.device),
        }


class MovingDigits:
    """Every scan in every direction, in the order of the scans."""

    def __init__(self, config: MovingDigitsConfig, scans: Tensor, digits: Tensor) -> None:
        self.config, self.scans, self.digits = config, scans, digits

    def __len__(self) -> int:
        return len(self.scans) * len(DIRECTIONS)

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        """Returns `pixels` (b 3 t 32 32) in [0, 1], white on black, `captions` (b strings),
        `digits` and `directions` (numbers of `DIRECTIONS`)."""
        rows = torch.as_tensor(indices)
        scans, directions = rows // len(DIRECTIONS), rows % len(DIRECTIONS)
        drawn = uniform(seeds_of(0, rows) if seeds is None else seeds, 2, _STREAM)
        frames = self._frames(seeds)
        step = min(self.config.step, ROOM // max(frames - 1, 1))
        pixels = clips(self.scans[scans], directions, drawn, frames, step, self.config.grid)
        names = list(DIRECTIONS)
        digits = self.digits[scans]
        words = zip(digits.tolist(), directions.tolist(), strict=True)
        return {
            "pixels": pixels.repeat(1, 3, 1, 1, 1),
            "captions": [caption(digit, names[way]) for digit, way in words],
            "digits": digits,
            "directions": directions,
        }

    def _frames(self, seeds: Tensor | None) -> int:
        lengths = self.config.frames
        if seeds is None or len(lengths) == 1:
            return lengths[0]
        return lengths[int(uniform(seeds[:1], 1, _STREAM + 1) * len(lengths))]
