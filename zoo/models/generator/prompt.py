"""What is asked for, as vectors: a text, a class, what another model made of a text; or nothing."""

# b prompts, m tokens of a prompt, s codes of a smaller picture, d width, e width of what the stack
# reads, q numbers that the picture is told by, w channels of their waves

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError, DataError
from zoo.models.generator.schema import GeneratorConfig, grid_of
from zoo.models.text.common import TokenEmbedding
from zoo.nn.feedforward import ACTIVATIONS
from zoo.nn.linear import Embedding, Linear, fill_normal_
from zoo.nn.mask import Mask
from zoo.registry import build

__all__ = ["Condition", "Prompt"]


@dataclass
class Condition:
    """A prompt as the stack reads it."""

    prefix: Tensor | None  # b p d, what stands before the codes
    prefix_mask: Tensor | None = None  # b p, which of that is seen; None: all of it
    memory: Tensor | None = None  # b m e, what cross-attention reads
    memory_mask: Tensor | None = None  # b m
    vector: Tensor | None = None  # b e, what adaptive norms read

    def join(self, other: Condition) -> Condition:
        """Returns both as one batch, one below the other."""
        if self.memory is not None and other.memory is not None:
            length = max(self.memory.shape[1], other.memory.shape[1])
            self, other = self._filled(length), other._filled(length)
        pairs = [(getattr(self, name), getattr(other, name)) for name in vars(self)]
        for index, (a, b) in enumerate(pairs):  # without a mask, all is seen
            if (a is None) != (b is None):
                pairs[index] = (torch.ones_like(b), b) if a is None else (a, torch.ones_like(a))
        return Condition(*(None if a is None else torch.cat([a, b]) for a, b in pairs))

    def _filled(self, length: int) -> Condition:
        """Returns the same with a memory of so many vectors; those that fill it up are not seen."""
        assert self.memory is not None
        room, mask = length - self.memory.shape[1], self.memory_mask
        if not room:
            return self
        if mask is None:
            mask = torch.ones_like(self.memory[..., 0], dtype=torch.bool)
        memory = F.pad(self.memory, (0, 0, 0, room))
        return replace(self, memory=memory, memory_mask=F.pad(mask, (0, room)))

    def select(self, rows: Tensor) -> Condition:
        """Returns the given rows of it; they may repeat."""
        values = (getattr(self, name) for name in vars(self))
        return Condition(*(None if value is None else value[rows] for value in values))


class Prompt(nn.Module):
    """Tokens, classes or features to a Condition."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        backbone: Any = config.backbone
        width, self.std = backbone.width, backbone.init_std
        self.width = config.encoder.width if config.encoder is not None else backbone.reads
        if config.text_length:
            self.embedding = TokenEmbedding(config, self.width, self.std, config.vocabulary)  # type: ignore[arg-type]
            if config.text_pads and not config.pad_rows:
                self.pads = nn.Parameter(torch.empty(config.text_length, self.width))
        if config.features:
            self.project = Linear(config.features, self.width, config.prompt_bias, self.std)
            if config.features_activation is not None:
                self.project_out = Linear(self.width, self.width, config.prompt_bias, self.std)
            if config.features_norm is not None:
                self.features_norm = build(config.features_norm, width=self.width)
            if config.learned_nothing:
                self.nothing = nn.Parameter(torch.empty(config.features_length, config.features))
        if config.pooled:
            self.vector = PromptVector(config, backbone.reads)
        if config.encoder is not None:
            self.encoder = build(config.encoder)
            if not config.memory and self.width != width:
                self.widen = Linear(self.width, width, std=self.std)
        if config.classes:
            self.classes = Embedding(config.classes + config.learned_nothing, width, self.std)
        if config.start:
            self.start = nn.Parameter(torch.empty(1, width))
        if config.source is not None:
            self.source = SmallPicture(config, self.width)

    def reset_parameters(self) -> None:
        for name in ("pads", "nothing", "start"):
            if hasattr(self, name):
                fill_normal_(getattr(self, name), self.std)

    def forward(
        self,
        batch: int,
        *,
        text: Tensor | None = None,  # b m
        text_mask: Tensor | None = None,  # b m, True marks tokens; without one all are
        labels: Tensor | None = None,  # b
        features: Tensor | None = None,  # b m features; None asks for nothing in particular
        features_mask: Tensor | None = None,  # b m
        pooled: Tensor | None = None,  # b pooled, as `features`
        measures: Tensor | None = None,  # b q; None: what the config says
        source: Tensor | None = None,  # b s, codes of the picture that is enlarged
    ) -> Condition:
        """Returns the condition of a batch; what is not given is nothing in particular."""
        config = self.config
        x, mask = None, None
        if config.text_length:
            if text is None:
                text, text_mask = self.no_text(batch)
            x, mask = self._read(text, text_mask)
        elif config.features:
            mask = features_mask
            if not config.memory:
                features, mask = self._to_the_right(features, mask)
            if features is None:
                features = nothing_of(self).expand(batch, -1, -1)
            x = self.project(features.to(self.project.weight.dtype))
            if config.features_activation is not None:
                x = self.project_out(ACTIVATIONS[config.features_activation](x))
            if config.features_norm is not None:
                x = self.features_norm(x)
        elif config.classes:
            if labels is None:
                if not config.learned_nothing:
                    raise ConfigError("No class is none in this model; name one, and guidance=1.")
                labels = torch.full((batch,), config.classes, device=self.classes.weight.device)
            x = self.classes(labels)[:, None]
        if config.encoder is not None and x is not None:
            x = self.encoder(x, mask=None if mask is None else Mask(padding=mask))
        if not config.memory and hasattr(self, "widen"):
            x = self.widen(x)
        start = self.start.expand(batch, -1, -1) if config.start else None
        vector = self.vector(batch, pooled, measures) if config.pooled else None
        if not config.memory:
            parts = [part for part in (x, start) if part is not None]
            if mask is not None and start is not None:
                mask = F.pad(mask, (0, 1), value=True)
            prefix = torch.cat(parts, dim=1) if parts else None
            return Condition(prefix, mask, vector=vector)
        if config.source is not None and source is not None:
            x, mask = self.source(x, mask, source)
        return Condition(start, memory=x, memory_mask=mask, vector=vector)

    def no_text(self, batch: int) -> tuple[Tensor, Tensor]:
        """Returns a text (b m) that says nothing, and its mask: the config's `no_text`, or else
        empty places, or, where those are not seen, one filling token."""
        device = next(self.parameters()).device
        shape = (batch, self.config.text_length)
        text = torch.full(shape, self.config.pad_token, dtype=torch.long, device=device)
        mask = torch.zeros(shape, dtype=torch.bool, device=device)
        said = self.config.no_text
        if said:
            text[:, : len(said)] = torch.tensor(said, device=device)
            mask[:, : len(said)] = True
        else:
            mask[:, 0] = not self.config.text_pads
        return text, mask

    def _to_the_right(
        self, features: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Returns vectors (b p features) of the length that stands before the codes, right before
        them, and which of them are seen (b p)."""
        given = features if mask is None else mask
        if given is None:
            return None, None
        missing = self.config.features_length - given.shape[1]
        if missing < 0:
            raise DataError(
                f"features: {given.shape[1]} vectors are more than the "
                f"{self.config.features_length} that this model reads."
            )
        if mask is None and missing:
            mask = torch.ones(given.shape[:2], dtype=torch.bool, device=given.device)
        if mask is None:
            return features, None
        mask = F.pad(mask, (missing, 0))
        order = mask.long().argsort(dim=1, stable=True)  # what is not seen comes first
        if features is not None:
            features = F.pad(features, (0, 0, missing, 0))
            features = features.gather(1, order[..., None].expand_as(features))
        return features, mask.gather(1, order)

    def _read(self, text: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Returns the text's vectors (b m e), and which of them are seen: None for all."""
        x = self.embedding(text)
        if mask is None or not self.config.text_pads:
            return x, mask
        rows = self.config.pad_rows
        pads = self.embedding.weight[-self.config.text_length :] if rows else self.pads
        return torch.where(mask[..., None], x, pads), None


class PromptVector(nn.Module):
    """What a text encoder makes of a whole text, and numbers that the picture is told by, as one
    vector: down(silu(up(pooled | waves of the numbers)))."""

    def __init__(self, config: GeneratorConfig, width: int) -> None:
        super().__init__()
        assert config.pooled is not None
        self.usual, self.waves, self.std = config.measures, config.measure_width, 0.02
        inputs = config.pooled + len(self.usual) * self.waves
        self.up = Linear(inputs, width, config.prompt_bias, inputs**-0.5)
        self.down = Linear(width, width, config.prompt_bias, width**-0.5)
        if config.learned_nothing:
            self.nothing = nn.Parameter(torch.empty(config.pooled))

    def reset_parameters(self) -> None:
        if hasattr(self, "nothing"):
            fill_normal_(self.nothing, self.std)

    def forward(self, batch: int, pooled: Tensor | None, measures: Tensor | None) -> Tensor:  # b e
        weight = self.up.weight
        if pooled is None:
            pooled = nothing_of(self).expand(batch, -1)
        if measures is None:
            measures = torch.tensor([*self.usual.values()], device=weight.device).expand(batch, -1)
        told = waves(measures, self.waves).flatten(1)
        x = torch.cat([pooled.to(weight.dtype), told.to(weight.dtype)], dim=1)
        return self.down(F.silu(self.up(x)))


def nothing_of(module: nn.Module) -> Tensor:
    """Returns what stands for no prompt; raises ConfigError where nothing does."""
    if not hasattr(module, "nothing"):
        raise ConfigError(
            "features: this model has learned none for no prompt; give features and pooled, and "
            "guidance=1."
        )
    nothing: Any = module.nothing
    return nothing


def waves(numbers: Tensor, width: int) -> Tensor:  # ... -> ... w
    """Returns numbers as cosines and then sines, of wave lengths from 2 pi up to 10,000 of that
    (Vaswani et al. 2017, section 3.5)."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=numbers.device) / half)
    angles = numbers.float()[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class SmallPicture(nn.Module):
    """The codes of a smaller picture, read by a stack of their own and put behind the prompt."""

    def __init__(self, config: GeneratorConfig, width: int) -> None:
        super().__init__()
        source: Any = config.source
        backbone: Any = config.backbone
        std, encoder = backbone.init_std, config.source_encoder
        inner = width if encoder is None else encoder.width
        self.embedding = Embedding(source.codebook_size, inner, std)
        self.encoder = None if encoder is None else build(encoder, grid=grid_of(source))
        self.project = Linear(inner, width, std=std) if inner != width else None

    def forward(
        self, x: Tensor | None, mask: Tensor | None, source: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        y = self.embedding(source)
        y = y if self.encoder is None else self.encoder(y)
        y = y if self.project is None else self.project(y)
        if x is None:
            return y, None
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(y.shape[:2])], dim=1)
        return torch.cat([x, y], dim=1), mask
