"""Schemas of the tokenizers. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from zoo.errors import ConfigError
from zoo.registry import kind, setting


@dataclass(kw_only=True)
class TokenizerConfig:
    """What every tokenizer shares."""

    zoo_kind: ClassVar[str]

    def inputs(self) -> str:
        """What the tokenizer takes, for people."""
        raise NotImplementedError


@kind("tokenizer", "patches", builds="zoo.tokenizers.patches:PatchTokenizer")
@dataclass(kw_only=True)
class PatchTokenizerConfig(TokenizerConfig):
    """How a raw picture becomes pixels, and pixels tokens (Dosovitskiy 2020, section 3.1)."""

    image: tuple[int, int] = setting(
        [224, 224], "height and width that the model was made for", low=1
    )
    size: tuple[int, int] | None = setting(
        None, "height and width that pictures are brought to, when not `image` (DINOv2)", low=1
    )
    patch: tuple[int, int] = setting([16, 16], "height and width of a patch, in pixels", low=1)
    channels: int = setting(3, "3 for colour, 1 for grey", low=1)
    bias: bool = setting(True, "bias on the patch projection (CLIP has none)")
    cut: bool = setting(
        False,
        "leave out pixels past the last whole patch (SigLIP: 384 by 14) instead of refusing",
    )
    resize: Literal["shortest", "squash", "pad"] = setting(
        "shortest",
        "shortest side to size and crop the centre; both sides to size; or pad to a square first",
    )
    crop: float = setting(
        1.0, "share of the resized picture that the centre crop keeps", above=0.0, high=1.0
    )
    crop_offset: Literal["round", "floor"] = setting(
        "round",
        "where an odd rest goes: rounded (torchvision, timm) or down (transformers' Pillow code)",
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = setting(
        "bicubic", "filter of the resize"
    )
    mean: list[float] = setting([0.5, 0.5, 0.5], "subtracted from pixels in [0, 1], per channel")
    std: list[float] = setting([0.5, 0.5, 0.5], "divides what is left, per channel", above=0.0)

    def check(self) -> None:
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.channels):
                raise ConfigError(
                    f"{name}: needs 1 or {self.channels} numbers, one for each channel."
                )
        for key, sizes in (("image", self.image), ("size", self.size or self.image)):
            for side, size, patch in zip(("height", "width"), sizes, self.patch, strict=True):
                if size < patch or (size % patch and not self.cut):
                    raise ConfigError(
                        f"{key}: {side} {size} is no multiple of the patch's {patch}."
                    )
