"""Handwritten digits in four colours, with captions: text-to-image that fits in minutes.

The scans are those of `zoo.data.digits`, ink in red, green, blue or white on black. Four of the
forty pairs of colour and digit are never shown in training, so that a model that draws them has
understood both words rather than remembered pictures.
"""

# b batch, n pictures, h w pixels

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.data.base import Batch
from zoo.data.digits import load_digits
from zoo.data.judge import frechet, judge_pictures

if TYPE_CHECKING:
    from zoo.data.schema import ColourDigitsConfig

__all__ = ["COLOURS", "UNSEEN", "WORDS", "ColourDigitsData", "caption", "paint"]

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0),
           "white": (1.0, 1.0, 1.0)}  # fmt: skip
# never in training: each colour once, and digits that look alike to nobody
UNSEEN = (("red", 7), ("green", 2), ("blue", 5), ("white", 9))
_INK = torch.tensor(list(COLOURS.values()))


def caption(colour: str, digit: int) -> str:
    """Returns what such a picture is called, `"a handwritten red three"`."""
    return f"a handwritten {colour} {WORDS[digit]}"


def paint(images: Tensor, colours: Tensor) -> Tensor:  # n h w uint8, n -> n 3 h w in [0, 1]
    """Returns ink in colours (numbers of `COLOURS`) on black."""
    return images[:, None].float() / 255 * _INK[colours][:, :, None, None]


class ColourDigitsData:
    """`data=colour-digits`: 5748 pictures to train on less the unseen pairs, 1440 held out."""

    labels: list[str] = []

    def __init__(self, config: ColourDigitsConfig) -> None:
        self.config = config

    def split(self, name: str, model: Any = None) -> ColourDigits:
        """Returns `"train"` or `"test"`; the model is not asked, pixels are always in [0, 1]."""
        images, digits = load_digits(name)  # type: ignore[arg-type]
        keep_unseen = name != "train" or self.config.unseen
        return ColourDigits(torch.from_numpy(images), torch.from_numpy(digits), keep_unseen)

    def judge(self, pixels: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Returns name -> (b) bool: what an independent reader makes of (generated) pictures."""
        return judge_pictures(pixels, batch["digits"], batch["colours"])

    def distance(self, pixels: Tensor) -> float:
        """Returns the Fréchet distance of (generated) pictures from the real scans."""
        return frechet(pixels)


class ColourDigits:
    """Every scan in every colour, in the order of the scans."""

    def __init__(self, images: Tensor, digits: Tensor, keep_unseen: bool) -> None:
        scans = torch.arange(len(images)).repeat_interleave(len(COLOURS))
        colours = torch.arange(len(COLOURS)).repeat(len(images))
        self.unseen = _is_unseen(colours, digits[scans])
        if not keep_unseen:
            scans, colours = scans[~self.unseen], colours[~self.unseen]
            self.unseen = self.unseen[~self.unseen]
        self.images, self.scans, self.colours = images, scans, colours
        self.digits = digits[scans]
        names = list(COLOURS)
        self.captions = [
            caption(names[colour], digit)
            for colour, digit in zip(colours.tolist(), self.digits.tolist(), strict=True)
        ]

    def __len__(self) -> int:
        return len(self.scans)

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        """Returns `pixels` (b 3 32 32) in [0, 1], `captions` (b strings), `digits`, `colours`
        (numbers of `COLOURS`) and `unseen` (b), whether the pair is one of `UNSEEN`."""
        rows = torch.as_tensor(indices)
        return {
            "pixels": paint(self.images[self.scans[rows]], self.colours[rows]),
            "captions": [self.captions[row] for row in rows.tolist()],
            "digits": self.digits[rows],
            "colours": self.colours[rows],
            "unseen": self.unseen[rows],
        }


def _is_unseen(colours: Tensor, digits: Tensor) -> Tensor:
    names = list(COLOURS)
    pairs = torch.tensor([10 * names.index(colour) + digit for colour, digit in UNSEEN])
    return torch.isin(10 * colours + digits, pairs)
