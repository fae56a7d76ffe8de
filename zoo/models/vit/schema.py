"""Schema of the vision transformers. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.backbones.schema import TransformerConfig
from zoo.errors import ConfigError
from zoo.models.schema import ModelConfig
from zoo.registry import kind, part, setting
from zoo.tokenizers.schema import PatchTokenizerConfig


@kind("model", "vit", builds="zoo.models.vit.model:VisionTransformer")
@dataclass(kw_only=True)
class VisionTransformerConfig(ModelConfig):
    """ViT and its relatives: an encoder over image patches (Dosovitskiy et al. 2020, arXiv 2010.11929)."""

    tokenizer: PatchTokenizerConfig = part("tokenizer", "patches", "pictures to patches")
    backbone: TransformerConfig = part(
        "backbone",
        {"kind": "transformer", "position": "learned-grid", "norm": {"name": "layer", "eps": 1e-6}},
        "the encoder",
    )
    class_token: bool = setting(True, "a learned token before the patches")
    distillation_token: bool = setting(False, "a second one, with a head of its own (DeiT)")
    registers: int = setting(
        0, "learned tokens after those that take part in nothing else (Darcet 2023)", low=0
    )
    pool: Literal["class", "mean", "class-mean", "attention", "none"] = setting(
        "class",
        "what the head reads: the class token, the mean of the patches, both side by side, or a learned query",
    )
    pool_norm: bool = setting(False, "norm after pooling (instead of the backbone's final norm)")
    classes: int = setting(1000, "outputs of the head; 0 for features only", low=0)
    head_bias: bool = setting(True, "bias of the head (CLIP's projection has none)")
    labels: list[str] = setting([], "names of the classes")

    def check(self) -> None:
        if self.pool in ("class", "class-mean") and not self.class_token:
            raise ConfigError(
                "pool: 'class' reads the class token, and class_token is false; use 'mean'."
            )
        if self.labels and len(self.labels) != self.classes:
            raise ConfigError(f"labels: {len(self.labels)} names for {self.classes} classes.")
