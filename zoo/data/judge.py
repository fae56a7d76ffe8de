"""Independent readers of drawn digits: what they are, their colour, where they move, and how far
a set of them is from real ones.

They are fitted to real scans alone, to the 1437 that models train on, in closed form, and see
nothing but 8 x 8 pixels of ink, so no model can please them by its own habits.
"""

# b batch, n scans, c channels, t frames, h w pixels, f features

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.digits import load_digits
from zoo.errors import DataError

__all__ = [
    "centres",
    "frechet",
    "judge_clips",
    "judge_pictures",
    "read_colours",
    "read_digits",
    "read_directions",
]

_GAMMA = 0.25  # of the radial kernel, over squared distances of ink in [0, 1]
_RIDGE = 0.1
_FEATURES = 16  # principal components in which Fréchet distances are taken


def ink(pixels: Tensor) -> Tensor:  # b c h w -> b 8 8
    """Returns how much ink lies in each of 8 x 8 blocks of a picture in [0, 1]: the brightest
    channel, block means."""
    if pixels.ndim != 4 or pixels.shape[2] % 8 or pixels.shape[3] % 8:
        raise DataError(
            "The judge reads pixels (batch, channels, height, width) of a multiple of 8, got "
            f"{tuple(pixels.shape)}."
        )
    bright = pixels.float().amax(1, keepdim=True)
    return F.adaptive_avg_pool2d(bright, 8)[:, 0]


def read_digits(pixels: Tensor) -> Tensor:  # b c h w -> b
    """Returns the digit that fills each picture."""
    return _reader("whole")(ink(pixels).flatten(1)).argmax(-1)


def read_small_digits(pixels: Tensor) -> Tensor:  # b c 32 32 -> b
    """Returns the digit of 16 x 16 pixels that stands somewhere in each picture."""
    return _reader("found")(_found(pixels).flatten(1)).argmax(-1)


def read_colours(pixels: Tensor) -> Tensor:  # b 3 h w -> b
    """Returns the nearest colour of each picture's ink, a number of
    `zoo.data.colour_digits.COLOURS`."""
    from zoo.data.colour_digits import COLOURS

    table = F.normalize(torch.tensor(list(COLOURS.values()), device=pixels.device), dim=-1)
    mean = F.normalize(pixels.float().flatten(2).square().mean(-1).sqrt(), dim=-1)
    return (mean @ table.T).argmax(-1)


def read_directions(pixels: Tensor) -> Tensor:  # b c t h w -> b
    """Returns where the ink of each clip goes from its first frame to its last, a number of
    `zoo.data.moving_digits.DIRECTIONS`."""
    from zoo.data.moving_digits import DIRECTIONS

    way = centres(pixels[:, :, -1]) - centres(pixels[:, :, 0])
    table = torch.tensor(list(DIRECTIONS.values()), device=pixels.device).float()
    return (way @ table.T).argmax(-1)


def judge_pictures(pixels: Tensor, digits: Tensor, colours: Tensor) -> dict[str, Tensor]:
    """Returns whether each picture (b 3 h w) shows its digit, and its colour."""
    return {
        "digit": read_digits(pixels) == digits,
        "colour": read_colours(pixels) == colours,
    }


def judge_clips(pixels: Tensor, digits: Tensor, directions: Tensor) -> dict[str, Tensor]:
    """Returns whether each clip (b c t h w) shows its digit in its first frame and in its last,
    and moves as it should."""
    return {
        "digit": read_small_digits(pixels[:, :, 0]) == digits,
        "digit_last": read_small_digits(pixels[:, :, -1]) == digits,
        "direction": read_directions(pixels) == directions,
    }


def frechet(pixels: Tensor) -> float:  # b c h w
    """Returns the Fréchet distance between pictures and the real training scans, both as normal
    distributions over 16 principal components of 8 x 8 ink. Held-out scans are at 0.025."""
    mean, basis, real_mean, real_covariance = _components()
    features = (ink(pixels).flatten(1).double().cpu() - mean) @ basis
    covariance = features.T.cov()
    # The trace of the root of a product of covariances is that of a symmetric one.
    root = _root(real_covariance)
    middle = torch.linalg.eigvalsh(root @ covariance @ root).clamp(min=0).sqrt().sum()
    trace = (real_covariance + covariance).trace() - 2 * middle
    return float((features.mean(0) - real_mean).square().sum() + trace)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


# -- fitting ---------------------------------------------------------------------------------------


class Reader:
    """Kernel ridge regression onto one-hot digits: a least-squares support vector machine (Suykens
    and Vandewalle 1999)."""

    def __init__(self, features: Tensor, digits: Tensor) -> None:  # n f, n
        self.scans = features.double()
        kernel = self._kernel(self.scans)
        targets = F.one_hot(digits, 10).double()
        kernel += _RIDGE * torch.eye(len(kernel), dtype=kernel.dtype)
        self.weights = torch.linalg.solve(kernel, targets)

    def __call__(self, features: Tensor) -> Tensor:  # b f -> b 10
        return self._kernel(features.double().cpu()).to(self.weights) @ self.weights

    def _kernel(self, features: Tensor) -> Tensor:
        return (-_GAMMA * torch.cdist(features, self.scans).square()).exp()


@cache
def _reader(way: str) -> Reader:
    images, digits = load_digits("train")
    pixels = torch.from_numpy(images)[:, None].float() / 255
    if way == "whole":
        features = ink(pixels)
    else:  # as a moving digit is found: shrunk, somewhere on black
        features = _found(F.pad(F.avg_pool2d(pixels, 2), (8, 8, 8, 8)))
    return Reader(features.flatten(1), torch.from_numpy(digits))


@cache
def _components() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns (mean, basis, mean in the basis, covariance in the basis) of the real scans."""
    images, _ = load_digits("train")
    scans = ink(torch.from_numpy(images)[:, None].float() / 255).flatten(1).double()
    mean = scans.mean(0)
    _, vectors = torch.linalg.eigh((scans - mean).T.cov())
    basis = vectors[:, -_FEATURES:]
    features = (scans - mean) @ basis
    return mean, basis, features.mean(0), features.T.cov()


def centres(pixels: Tensor) -> Tensor:  # b c h w -> b 2
    """Returns row and column of the centre of each picture's ink."""
    bright = pixels.float().clamp(min=0).amax(1)
    bright = torch.where(bright > 0.25, bright, 0.0)
    total = bright.sum((1, 2)).clamp(min=1e-6)
    rows, columns = (torch.arange(size, device=pixels.device) for size in bright.shape[1:])
    return torch.stack(
        [(bright.sum(2) * rows).sum(1) / total, (bright.sum(1) * columns).sum(1) / total], dim=-1
    )


def _found(pixels: Tensor) -> Tensor:  # b c h w -> b 8 8
    """Returns the 16 x 16 pixels around the centre of the ink, as 8 x 8 blocks."""
    corners = (centres(pixels) - 7.5).round().long() + 8
    padded = F.pad(pixels.float().amax(1), (8, 8, 8, 8))
    cut = torch.stack(
        [
            picture[row : row + 16, column : column + 16]
            for picture, (row, column) in zip(padded, corners.tolist(), strict=True)
        ]
    )
    return F.avg_pool2d(cut[:, None], 2)[:, 0]
