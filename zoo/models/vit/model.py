"""Vision transformers: patches, an encoder, a pooled token, a head."""

# b batch, c channels, h w pixels, n tokens (prefix and patches), d width, k classes

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.models.vit.schema import VisionTransformerConfig
from zoo.models.vit.verbs import ImageVerbs
from zoo.nn.attention import Attention, Context, Record
from zoo.nn.linear import Linear, fill_normal_
from zoo.registry import build

__all__ = ["ImageOutput", "VisionTransformer"]


@dataclass
class ImageOutput:
    """What a vision model gives."""

    logits: Tensor | None  # b k; None without a head
    hidden: Tensor  # b n d, after the final norm
    pooled: Tensor  # b d, what the head reads
    distillation_logits: Tensor | None = None  # b k, in training of a distilled model


class VisionTransformer(nn.Module, ImageVerbs):
    """ViT, DeiT, DINO-style, SigLIP and CLIP towers: one model, many nodes."""

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        self.config = config
        width, std = config.backbone.width, config.backbone.init_std
        self.tokenizer = build(config.tokenizer, width=width)
        self.prefix = Prefix(config, width)
        self.backbone = build(config.backbone, grid=self.tokenizer.grid, prefix=len(self.prefix))
        if config.pool == "attention":
            self.pool = AttentionPool(config, width)
        if config.pool_norm:
            self.pool_norm = build(config.backbone.norm, width=width)
        if config.classes:
            inputs = 2 * width if config.pool == "class-mean" else width
            self.head = Linear(inputs, config.classes, config.head_bias, std)
            if config.distillation_token:
                self.distillation_head = Linear(width, config.classes, config.head_bias, std)

    def forward(self, pixels: Tensor, record: Record | None = None) -> ImageOutput:  # b c h w
        x = self.prefix(self.tokenizer(pixels))
        x = self.backbone(x, grid=self.tokenizer.grid_for(*pixels.shape[2:]), record=record)
        pooled = self._pool(x)
        if not self.config.classes:
            return ImageOutput(None, x, pooled)
        logits = self.head(pooled)
        if not self.config.distillation_token:
            return ImageOutput(logits, x, pooled)
        other = self.distillation_head(x[:, 1])
        if self.training:
            return ImageOutput(logits, x, pooled, other)
        return ImageOutput((logits + other) / 2, x, pooled)  # DeiT, section 4

    def _pool(self, x: Tensor) -> Tensor:  # b n d -> b d
        pool, patches = self.config.pool, x[:, len(self.prefix) :]
        if pool == "attention":
            pooled = self.pool(x)
        elif pool == "mean":
            pooled = patches.mean(1)
        elif pool == "class-mean":
            pooled = torch.cat([x[:, 0], patches.mean(1)], dim=-1)
        else:
            pooled = x[:, 0]
        return self.pool_norm(pooled) if self.config.pool_norm else pooled

    def fsdp_units(self) -> list[nn.Module]:
        """Returns what is sharded as a unit."""
        return self.backbone.fsdp_units()

    def patch_tokens(self, pixels: Tensor, layer: int | None = None) -> Tensor:
        """Returns the patches' outputs (b rows*columns d) without prefix tokens.

        `layer` counts blocks from the end as Python does: -1 is the last block's output, -2 the one before (LLaVA);
        None is the output after the final norm.
        """
        if layer is None:
            return self(pixels).hidden[:, len(self.prefix) :]
        index = self.config.backbone.depth + layer if layer < 0 else layer
        record = Record(layers=frozenset({index}))
        self(pixels, record)
        return record.hidden[index][:, len(self.prefix) :]


class Prefix(nn.Module):
    """The learned tokens before the patches: class, distillation, registers."""

    def __init__(self, config: VisionTransformerConfig, width: int) -> None:
        super().__init__()
        counts = {
            "class_token": int(config.class_token),
            "distillation_token": int(config.distillation_token),
            "registers": config.registers,
        }
        self.names = [name for name, count in counts.items() if count]
        self.count = sum(counts.values())
        self.std = config.backbone.init_std
        for name in self.names:
            setattr(self, name, nn.Parameter(torch.empty(counts[name], width)))

    def __len__(self) -> int:
        return self.count

    def reset_parameters(self) -> None:
        for name in self.names:
            fill_normal_(getattr(self, name), self.std)

    def forward(self, x: Tensor) -> Tensor:  # b n d -> b prefix+n d
        if not self.names:
            return x
        tokens = [getattr(self, name).expand(x.shape[0], -1, -1) for name in self.names]
        return torch.cat([*tokens, x], dim=1)


class AttentionPool(nn.Module):
    """A learned query attends to every token, then a feed-forward (Zhai et al. 2022; SigLIP's head)."""

    def __init__(self, config: VisionTransformerConfig, width: int) -> None:
        super().__init__()
        backbone = config.backbone
        self.std = backbone.init_std
        self.query = nn.Parameter(torch.empty(1, width))
        self.attention = Attention(backbone.attention, width, cross=True, std=self.std)
        self.norm = build(backbone.norm, width=width)
        self.feedforward = build(backbone.feedforward, width=width, std=self.std)

    def reset_parameters(self) -> None:
        fill_normal_(self.query, self.std)

    def forward(self, x: Tensor) -> Tensor:  # b n d -> b d
        query = self.query.expand(x.shape[0], -1, -1)
        y = self.attention(query, Context(memory=x))
        return (y + self.feedforward(self.norm(y)))[:, 0]
