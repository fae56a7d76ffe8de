"""Schemas of timm's backbones and of the pictures they take. Torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from zoo.errors import ConfigError
from zoo.models.schema import ModelConfig
from zoo.registry import kind, part, setting
from zoo.tokenizers.schema import TokenizerConfig

# Keyword arguments of timm.create_model that no `options` may hold: those that have a key of their
# own here, and those that would read files or the network, or give something that is no classifier.
HAVE_KEYS = {
    "drop_path_rate": "drop_path",
    "drop_rate": "dropout",
    "global_pool": "pool",
    "img_size": "tokenizer.image",
    "in_chans": "tokenizer.channels",
    "num_classes": "classes",
}
FORBIDDEN = (
    "cache_dir", "checkpoint_path", "device", "dtype", "exportable", "feature_cls", "features_only",
    "kwargs_filter", "no_jit", "out_indices", "pretrained", "pretrained_cfg",
    "pretrained_cfg_overlay", "pretrained_filter_fn", "pretrained_model_args", "pretrained_strict",
    "pruned", "scriptable",
)  # fmt: skip
LabelSet = Literal[
    "imagenet-1k",
    "imagenet-12k",
    "imagenet-21k-goog",
    "imagenet-21k-miil",
    "imagenet-22k",
    "imagenet-22k-ms",
]


@kind("tokenizer", "timm/pixels", builds="zoo_timm.pixels:Pixels")
@dataclass(kw_only=True)
class PixelsConfig(TokenizerConfig):
    """How a raw picture becomes pixels: timm's evaluation transform, of which every weights tag has
    its own."""

    image: tuple[int, int] = setting([224, 224], "height and width of what the model gets", low=1)
    channels: int = setting(3, "3 for colour, 1 for grey", low=1)
    resize: Literal["shortest", "squash", "border"] = setting(
        "shortest",
        "timm's crop_mode: shortest side to size and the centre cut out (center), both sides to "
        "size (squash), or longest side to size and the rest filled with the mean colour (border)",
    )
    crop: float = setting(
        0.875,
        "share of the resized picture that is kept; beyond 1 a black rim is added (crop_pct)",
        above=0.0,
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = setting(
        "bicubic", "filter of the resize"
    )
    mean: list[float] = setting(
        [0.485, 0.456, 0.406], "subtracted from pixels in [0, 1], per channel"
    )
    std: list[float] = setting(
        [0.229, 0.224, 0.225], "divides what is left, per channel", above=0.0
    )

    def check(self) -> None:
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.channels):
                raise ConfigError(
                    f"{name}: needs 1 or {self.channels} numbers, one for each channel."
                )


@kind("model", "timm/backbone", builds="zoo_timm.model:TimmBackbone")
@dataclass(kw_only=True)
class TimmBackboneConfig(ModelConfig):
    """A model of timm (Wightman 2019, github.com/huggingface/pytorch-image-models)."""

    architecture: str = setting(doc="timm's name of it, without a tag: resnet50")
    tokenizer: PixelsConfig = part("tokenizer", "timm/pixels", "pictures to pixels")
    classes: int = setting(1000, "outputs of the head; 0 for features only", low=0)
    labels: list[str] = setting([], "names of the classes")
    label_set: LabelSet | None = setting(
        None, "where the names of the classes are taken from when `labels` is empty"
    )
    pool: str | None = setting(
        None, "how the head pools (global_pool: avg, token, map, …); null is the architecture's"
    )
    dropout: float = setting(0.0, "before the head, in training (drop_rate)", low=0.0, high=1.0)
    drop_path: float = setting(
        0.0, "chance that a sample skips a block, in training (drop_path_rate)", low=0.0, high=1.0
    )
    options: dict[str, Any] = setting(
        {}, "other keyword arguments of the architecture, plain values only: {patch_size: 8}"
    )

    def check(self) -> None:
        if not re.fullmatch(r"\w+", self.architecture, re.ASCII):  # no hf-hub:…, no local-dir:…
            raise ConfigError(
                f"architecture: {self.architecture!r} is no name of timm's, such as resnet50."
            )
        if self.labels and len(self.labels) != self.classes:
            raise ConfigError(f"labels: {len(self.labels)} names for {self.classes} classes.")
        for key, value in self.options.items():
            if key in HAVE_KEYS:
                raise ConfigError(f"options.{key}: use the key {HAVE_KEYS[key]!r} instead.")
            if key in FORBIDDEN or key.startswith("_"):
                raise ConfigError(f"options.{key}: is not for a config to choose.")
            values = value if isinstance(value, list) else [value]
            if not all(v is None or isinstance(v, (bool, int, float, str)) for v in values):
                raise ConfigError(f"options.{key}: expected a plain value or a list of them.")

    def inputs(self) -> str:
        """Returns what the model takes, for `zoo info`."""
        height, width = self.tokenizer.image
        colour = "grey" if self.tokenizer.channels == 1 else "colour"
        return f"{colour} pictures, {height} x {width}"
