"""Schema of the vision transformers. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.backbones.schema import TransformerConfig
from zoo.errors import ConfigError
from zoo.models.schema import ModelConfig
from zoo.nn.schema import Activation
from zoo.registry import kind, part, setting
from zoo.tokenizers.schema import PatchTokenizerConfig


@kind("model", "vit", builds="zoo.models.vit.model:VisionTransformer")
@dataclass(kw_only=True)
class VisionTransformerConfig(ModelConfig):
    """ViT and its relatives: an encoder over image patches (Dosovitskiy 2020, arXiv 2010.11929).

    The way of a picture: patches, prefix tokens before them, the encoder, one pooled vector, a
    projection of it where there is one, a linear head.
    """

    tokenizer: PatchTokenizerConfig = part("tokenizer", "patches", "pictures to patches")
    backbone: TransformerConfig = part(
        "backbone",
        {"kind": "transformer", "position": "learned-grid", "norm": {"name": "layer", "eps": 1e-6}},
        "the encoder",
    )
    # tokens that are no patches
    class_token: bool = setting(True, "a learned token before the patches")
    distillation_token: bool = setting(False, "a second one, with a head of its own (DeiT)")
    registers: int = setting(
        0, "learned tokens after those that nothing reads (Darcet et al. 2023)", low=0
    )
    mask_token: bool = setting(
        False, "a learned token that stands in for masked patches, in self-supervised training"
    )
    # from tokens to one vector
    pool: Literal["class", "mean", "class-mean", "attention"] = setting(
        "class",
        "the class token, the mean of the patches, both side by side, or a learned query",
    )
    pool_norm: bool = setting(False, "norm after pooling (instead of the backbone's final norm)")
    projection: int | None = setting(
        None,
        "width of a linear map after that: what CLIP shares with text, ViT's pre-logits",
        low=1,
    )
    projection_bias: bool = setting(False, "bias of that map")
    projection_activation: Activation = setting("linear", "what follows it: tanh in ViT's")
    # head
    classes: int = setting(1000, "outputs of the head; 0 for features only", low=0)
    labels: list[str] = setting([], "names of the classes")
    label_set: Literal["imagenet-1k", "imagenet-12k", "imagenet-21k", "imagenet-22k"] | None = (
        setting(None, "where the names of the classes are taken from when `labels` is empty")
    )

    def check(self) -> None:
        if self.pool in ("class", "class-mean") and not self.class_token:
            raise ConfigError(
                f"pool: {self.pool!r} reads the class token, and class_token is false; use 'mean'."
            )
        if self.distillation_token and not self.class_token:
            raise ConfigError("distillation_token: stands beside a class token; set class_token.")
        if self.labels and len(self.labels) != self.classes:
            raise ConfigError(f"labels: {len(self.labels)} names for {self.classes} classes.")

    @property
    def prefix_tokens(self) -> int:
        """How many tokens stand before the patches."""
        return self.class_token + self.distillation_token + self.registers

    def inputs(self) -> str:
        """What the model takes, for people."""
        tokenizer = self.tokenizer
        (height, width), (p, r) = tokenizer.image, tokenizer.patch
        return (
            f"pictures, or pixels (b {tokenizer.channels} {height} {width}): "
            f"{height // p} x {width // r} patches after {self.prefix_tokens} more tokens; "
            f"other multiples of {p} x {r} too"
        )
