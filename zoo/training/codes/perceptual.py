"""Pictures compared by what another network sees in them."""

# b batch, c channels, h w pixels, n tokens, d width

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.nn.attention import Record
from zoo.training.codes.schema import FeatureDistanceConfig

__all__ = ["FeatureDistance"]


class FeatureDistance:
    """The mean squared distance of a vision model's features at unit length, over tokens and
    blocks. The model is no part of what is trained or stored."""

    def __init__(self, config: FeatureDistanceConfig) -> None:
        from zoo.api.build import load
        from zoo.nn.forms import thaw

        model: Any = thaw(load(config.model))
        if getattr(model, "config", None) is None or model.config.zoo_kind != "vit":
            raise ConfigError(f"perceptual.model: {config.model!r} is no vision model.")
        self.model: Any = model.eval().requires_grad_(False).float()
        depth = model.config.backbone.depth
        self.layers = frozenset(config.layers or range(depth))
        if max(self.layers) >= depth:
            raise ConfigError(
                f"perceptual.layers: {config.model!r} has blocks 0 to {depth - 1}, not "
                f"{max(self.layers)}."
            )

    def __call__(self, made: Tensor, real: Tensor) -> Tensor:  # b c h w each, in [0, 1]
        """Returns a scalar; gradients go to `made` alone."""
        self.model.to(made.device)
        with torch.no_grad():
            expected = self.features(real)
        found = self.features(made)
        parts = [(a - b).square().sum(-1).mean() for a, b in zip(found, expected, strict=True)]
        return torch.stack(parts).mean()

    def features(self, pixels: Tensor) -> list[Tensor]:  # b n d each, of unit length
        """Returns what the chosen blocks see in pixels of any size, as raw pictures would be
        brought to the model."""
        config = self.model.config.tokenizer
        if config.channels == 1 and pixels.shape[1] == 3:
            weights = pixels.new_tensor([0.299, 0.587, 0.114])  # as Pillow makes grey
            pixels = (pixels * weights[:, None, None]).sum(1, keepdim=True)
        elif config.channels == 3 and pixels.shape[1] == 1:
            pixels = pixels.expand(-1, 3, -1, -1)
        size = tuple(config.size or config.image)
        if pixels.shape[2:] != size:
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        mean, std = (pixels.new_tensor(v)[:, None, None] for v in (config.mean, config.std))
        record = Record(layers=self.layers)
        self.model((pixels.float() - mean) / std, record=record)
        return [F.normalize(record.hidden[layer], dim=-1) for layer in sorted(self.layers)]
