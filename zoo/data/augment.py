"""Random changes of a batch of pictures, each a function of its sample's seed."""

# b batch, c channels, h w pixels

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.draw import uniform
from zoo.data.schema import Augment

__all__ = ["augment", "boxes"]

_ELASTIC_GRID = 4  # points along a side that move freely; what lies between follows


def augment(pixels: Tensor, seeds: Tensor, config: Augment) -> Tensor:  # b c h w, b -> b c h w
    """Returns the pictures moved, turned, bent and partly blanked as `config` allows; `pixels`
    stays as it is."""
    warps = (
        config.shift,
        config.rotate,
        config.scale,
        config.stretch,
        config.shear,
        config.elastic,
    )
    if any(warps) or config.flip:
        pixels = _warp(pixels, seeds, config)
    if config.erase:
        pixels = _erase(pixels, seeds, config)
    return pixels


def _warp(pixels: Tensor, seeds: Tensor, config: Augment) -> Tensor:
    """All movements in one resampling, so that the picture blurs once."""
    signed = 2 * uniform(seeds, 7, stream=1) - 1  # b 7, in [-1, 1)
    angle = signed[:, 0] * math.radians(config.rotate)
    shear = torch.tan(signed[:, 1] * math.radians(config.shear))
    scale = torch.exp(signed[:, 2] * math.log1p(config.scale))
    stretch = torch.exp(signed[:, 3] * math.log1p(config.stretch) / 2)
    shift = 2 * config.shift * signed[:, 4:6]  # grid coordinates span 2
    mirror = torch.where(signed[:, 6] < 0, -1.0, 1.0) if config.flip else torch.ones_like(angle)
    cos, sin = torch.cos(angle), torch.sin(angle)
    wide, high = mirror * stretch / scale, 1 / (stretch * scale)
    rows = [
        torch.stack([cos * wide, (shear * cos - sin) * high, shift[:, 0]], dim=-1),
        torch.stack([sin * wide, (shear * sin + cos) * high, shift[:, 1]], dim=-1),
    ]
    theta = torch.stack(rows, dim=1)  # b 2 3: where in the source each target pixel looks
    aspect = pixels.shape[3] / pixels.shape[2]
    if aspect != 1:  # a turn is one in pixels, not in shares of unequal sides
        theta[:, 0, 1] /= aspect
        theta[:, 1, 0] *= aspect
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)  # b h w 2
    if config.elastic:
        grid = grid + _bend(seeds, pixels.shape[2:], config.elastic)
    return F.grid_sample(pixels, grid.to(pixels.dtype), padding_mode="border", align_corners=False)


def _bend(seeds: Tensor, size: torch.Size, amount: float) -> Tensor:  # b -> b h w 2
    points = _ELASTIC_GRID
    moves = 2 * uniform(seeds, 2 * points * points, stream=2) - 1
    field = (2 * amount * moves).view(-1, 2, points, points)
    field = F.interpolate(field, size=tuple(size), mode="bicubic", align_corners=True)
    return field.permute(0, 2, 3, 1)


def boxes(share: Tensor, where: Tensor, height: int, width: int) -> Tensor:  # b, b 2 -> b 1 h w
    """Returns a mask of one box per sample with `share` of the area (before it is cut at the
    border), in the shape of the picture, around the centre `where` (row and column in [0, 1))."""
    side = share.sqrt()
    masks = []
    for axis, length in ((0, height), (1, width)):
        half = side * length / 2
        centre = where[:, axis] * length
        at = torch.arange(length, device=share.device) + 0.5
        masks.append((at >= (centre - half)[:, None]) & (at < (centre + half)[:, None]))
    return (masks[0][:, :, None] & masks[1][:, None, :])[:, None]


def _erase(pixels: Tensor, seeds: Tensor, config: Augment) -> Tensor:
    drawn = uniform(seeds, 4, stream=3)
    share = drawn[:, 1] * config.erase_area * (drawn[:, 0] < config.erase)
    mask = boxes(share, drawn[:, 2:4], *pixels.shape[2:])
    # what is blanked gets the value of the picture's corner: its background, whatever the
    # normalisation
    return torch.where(mask, pixels[:, :, :1, :1], pixels)
