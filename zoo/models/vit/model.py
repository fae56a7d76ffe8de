"""Vision transformers: patches, an encoder, one pooled vector, a head."""

# b batch, c channels, h w pixels, n tokens (prefix and patches), d width, k classes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.models.vit.schema import VisionTransformerConfig
from zoo.models.vit.verbs import ImageVerbs
from zoo.nn.attention import Attention, Context, Record
from zoo.nn.feedforward import ACTIVATIONS, MLP
from zoo.nn.linear import Linear, fill_normal_
from zoo.nn.schema import AttentionConfig, MLPConfig
from zoo.registry import build

__all__ = ["ImageOutput", "VisionTransformer"]


@dataclass
class ImageOutput:
    """What a vision model gives."""

    logits: Tensor | None  # b k; None without a head
    hidden: Tensor  # b n d, what the encoder gives
    pooled: Tensor  # b d, what the head reads: the features of the picture
    distillation_logits: Tensor | None = None  # b k, of a distilled model


class VisionTransformer(nn.Module, ImageVerbs):
    """ViT, DeiT, DINO, SigLIP and CLIP towers: one model, many nodes."""

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        self.config = config
        width, std = config.backbone.width, config.backbone.init_std
        self.tokenizer = build(config.tokenizer, width=width)
        self.prefix = Prefix(config, width)
        self.backbone = build(
            config.backbone, grid=self.tokenizer.grid, prefix=config.prefix_tokens
        )
        self.pool = Pool(config, width)
        if config.classes:
            self.head = Linear(self.pool.width, config.classes, std=std)
        if config.classes and config.distillation_token:
            self.distillation_head = Linear(width, config.classes, std=std)

    def forward(
        self,
        pixels: Tensor,  # b c h w
        *,
        masked: Tensor | None = None,  # b patches, True where the mask token stands in
        record: Record | None = None,
    ) -> ImageOutput:
        """Raises DataError for pictures that do not divide into patches."""
        x = self.prefix(self.tokenizer(pixels), masked)
        x = self.backbone(x, grid=self.tokenizer.grid_for(*pixels.shape[2:]), record=record)
        pooled = self.pool(x)
        if not self.config.classes:
            return ImageOutput(None, x, pooled)
        logits = self.head(pooled)
        if not self.config.distillation_token:
            return ImageOutput(logits, x, pooled)
        other = self.distillation_head(x[:, 1])
        if not self.training:  # each head learns from its own teacher; together they answer
            logits = (logits + other) / 2  # DeiT, section 4
        return ImageOutput(logits, x, pooled, other)

    def patch_tokens(
        self, pixels: Tensor, layer: int | Sequence[int] | None = None, prefix: bool = False
    ) -> Tensor:
        """Returns the patches' outputs (b rows*columns d), with `prefix` behind the prefix tokens'.

        `layer` counts blocks as Python does: -1 is the last block's output, -2 the one before
        (LLaVA); those of several stand side by side; None is what the encoder gives.
        """
        first = 0 if prefix else self.config.prefix_tokens
        if layer is None:
            return self(pixels).hidden[:, first:]
        depth, layers = self.config.backbone.depth, [layer] if isinstance(layer, int) else layer
        for each in layers:
            if not -depth <= each < depth:
                raise ConfigError(f"layer: {each} is none of the {depth} blocks.")
        record = Record(layers=frozenset(each % depth for each in layers))
        self(pixels, record=record)
        return torch.cat([record.hidden[each % depth][:, first:] for each in layers], dim=-1)

    def patch_width(self, layer: int | Sequence[int] | None = None) -> int:
        """Returns the width d of what `patch_tokens` gives; nothing is computed."""
        return self.config.backbone.width * (len(layer) if isinstance(layer, Sequence) else 1)

    def patch_grid(
        self, height: int, width: int, layer: int | Sequence[int] | None = None
    ) -> tuple[int, int]:
        """Returns rows and columns of `patch_tokens` of a picture of a size."""
        return self.tokenizer.grid_for(height, width)

    def fsdp_units(self) -> list[nn.Module]:
        """Returns what is sharded as a unit."""
        return self.backbone.fsdp_units()


class Prefix(nn.Module):
    """The learned tokens before the patches, and the one that stands in for masked patches."""

    def __init__(self, config: VisionTransformerConfig, width: int) -> None:
        super().__init__()
        counts = {
            "class_token": int(config.class_token),
            "distillation_token": int(config.distillation_token),
            "registers": config.registers,
        }
        self.names = [name for name, count in counts.items() if count]
        self.std = config.backbone.init_std
        for name in self.names:
            setattr(self, name, nn.Parameter(torch.empty(counts[name], width)))
        self.mask_token = nn.Parameter(torch.empty(1, width)) if config.mask_token else None

    def reset_parameters(self) -> None:
        for token in self.parameters():
            fill_normal_(token, self.std)

    def forward(self, x: Tensor, masked: Tensor | None = None) -> Tensor:  # b n d -> b prefix+n d
        if masked is not None:
            if self.mask_token is None:
                raise ConfigError("masked: this model has no mask token; set mask_token=true.")
            x = torch.where(masked[..., None], self.mask_token, x)
        tokens = [getattr(self, name).expand(x.shape[0], -1, -1) for name in self.names]
        return torch.cat([*tokens, x], dim=1) if tokens else x


class Pool(nn.Module):
    """From all tokens to one vector: pool, norm, projection, each where the config has it."""

    def __init__(self, config: VisionTransformerConfig, width: int) -> None:
        super().__init__()
        self.how = config.pool
        self.prefix = config.prefix_tokens
        self.width = 2 * width if config.pool == "class-mean" else width
        if config.pool == "attention":
            self.latent = LatentPool(config, width)
        self.norm = build(config.backbone.norm, width=self.width) if config.pool_norm else None
        self.projection = None
        if config.projection:
            self.projection = Linear(
                self.width, config.projection, config.projection_bias, config.backbone.init_std
            )
            self.activation = ACTIVATIONS[config.projection_activation]
            self.width = config.projection

    def forward(self, x: Tensor) -> Tensor:  # b n d -> b d
        x = self._one(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.projection is None else self.activation(self.projection(x))

    def _one(self, x: Tensor) -> Tensor:
        if self.how == "class":
            return x[:, 0]
        patches = x[:, self.prefix :]
        if self.how == "attention":
            return self.latent(patches)
        mean = patches.mean(1)
        return mean if self.how == "mean" else torch.cat([x[:, 0], mean], dim=-1)


class LatentPool(nn.Module):
    """A learned query attends to every patch, then a feed-forward (Zhai et al. 2022, appendix C).

    It has the heads and the hidden width of the encoder, and none of its variations: an exact
    attention with biases and a plain MLP, as SigLIP's head is in every library.
    """

    def __init__(self, config: VisionTransformerConfig, width: int) -> None:
        super().__init__()
        backbone, mixer = config.backbone, config.backbone.attention
        exact = mixer if isinstance(mixer, AttentionConfig) else AttentionConfig()
        heads = exact.shape(width)[0]
        if width % heads:
            raise ConfigError(f"pool: 'attention' cannot share width {width} among {heads} heads.")
        mlp = MLPConfig(
            hidden=backbone.feedforward.inner(width),  # type: ignore[arg-type]
            activation=backbone.feedforward.activation,
        )
        self.std = backbone.init_std
        self.query = nn.Parameter(torch.empty(1, width))
        self.attention = Attention(AttentionConfig(heads=heads), width, cross=True, std=self.std)
        self.norm = build(backbone.norm, width=width)
        self.feedforward = MLP(mlp, width, self.std)

    def reset_parameters(self) -> None:
        fill_normal_(self.query, self.std)

    def forward(self, patches: Tensor) -> Tensor:  # b n d -> b d
        query = self.query.expand(patches.shape[0], -1, -1)
        y = self.attention(query, Context(memory=patches))
        return (y + self.feedforward(self.norm(y)))[:, 0]
