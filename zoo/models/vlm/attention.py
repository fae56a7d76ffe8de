"""Where an answer looks: the attention of its first word over the patches of every picture."""

# l layers, h heads, k places, m tokens of a picture, r s rows and columns of patches

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.models.vlm.prompts import Asked
from zoo.nn.attention import Record

__all__ = ["answer_attention"]


def answer_attention(model: Any, asked: Asked) -> list[Tensor]:
    """Returns, for each picture, the share of the attention that falls on each patch (r s), the
    mean over all layers and heads of the language model."""
    config, tower = model.config, model.vision.tokenizer.config
    grid = model.vision.patch_grid(*tower.image, config.layer)
    small = model.adapter.grid(grid)
    if config.tiles or small is None:
        raise ConfigError("look: needs a model whose picture tokens have a place in one picture.")
    tokens = torch.tensor([model.prompt(asked)], device=model.device)
    seen = model.see_pictures(asked.pictures)
    x = model.join(tokens, seen)
    record = Record(attention=True)
    model.text(None, x.rules(), embedded=x.embedded, record=record, last=True)
    weights = torch.stack([w[0, :, -1] for w in record.weights.values()]).float()  # l h k
    shares = weights.mean((0, 1)).cpu()
    places = x.source[0][x.picture[0]].unique_consecutive()
    maps = []
    for picture, mark in zip(asked.pictures, places.tolist(), strict=True):
        own = shares[(x.source[0] == mark).cpu()]  # m
        patches = own[len(own) - small[0] * small[1] :].view(small)
        stretch = grid[0] // small[0], grid[1] // small[1]
        found = torch.kron(patches / (stretch[0] * stretch[1]), torch.ones(stretch))
        if config.class_token:
            layer = config.layer[-1] if isinstance(config.layer, list) else config.layer
            layer = -1 if layer is None else layer
            looks = model.vision.attention_maps(picture, layer).mean(0)  # r s
            found = found + own[: len(own) - patches.numel()].sum() * looks / looks.sum()
        maps.append(found)
    return maps
