"""SpecAugment, each utterance by its own seed."""

# b batch, t frames, m features

from __future__ import annotations

import torch
from torch import Tensor

from zoo.data.draw import normal, uniform
from zoo.data.speech.schema import SpecAugment

__all__ = ["spec_augment"]


def spec_augment(features: Tensor, lengths: Tensor, seeds: Tensor, config: SpecAugment) -> Tensor:
    """Returns changed features (b t m); what is blanked out becomes 0, the mean of features that
    are normalised."""
    t, m = features.shape[1:]
    if config.tilt:
        slope, offset = (config.tilt * normal(seeds, 2, stream=1)).unbind(1)
        across = torch.linspace(-1.7, 1.7, m)  # deviation 1
        features = features + (slope[:, None] * across + offset[:, None])[:, None]
    if config.noise:
        noise = torch.stack([_noise(int(seed), t, m) for seed in seeds])
        features = features + config.noise * noise
    bands = _covered(seeds, config.frequency_masks, m, config.frequency_width, 2)  # b m
    most = (lengths * config.time_width).long()
    stretches = _covered(seeds, config.time_masks, t, most, 3, lengths)  # b t
    past = torch.arange(t) >= lengths[:, None]
    return features.masked_fill(bands[:, None] | (stretches | past)[..., None], 0.0)


def _noise(seed: int, t: int, m: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed & (2**63 - 1))
    return torch.randn(t, m, generator=generator)


def _covered(
    seeds: Tensor,
    masks: int,
    size: int,
    width: int | Tensor,
    stream: int,
    ends: Tensor | None = None,
) -> Tensor:  # -> b size
    """Returns which places are covered by random stretches of up to `width` before `ends`."""
    if not masks:
        return torch.zeros(len(seeds), size, dtype=torch.bool)
    share, place = uniform(seeds, 2 * masks, stream).chunk(2, dim=1)  # b masks
    widest = width[:, None] if isinstance(width, Tensor) else width
    long = (share * (widest + 1)).floor()
    room = (torch.full_like(long, size) if ends is None else ends[:, None]) - long
    first = (place * (room.clamp(min=0) + 1)).floor()
    index = torch.arange(size)
    inside = (index >= first[..., None]) & (index < (first + long)[..., None])  # b masks size
    return inside.any(1)
