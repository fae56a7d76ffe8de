"""Schemas of the encoders and decoders of visual tokenizers. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from zoo.backbones.schema import TransformerConfig
from zoo.errors import ConfigError
from zoo.nn.schema import NormConfig
from zoo.registry import kind, part, setting


@dataclass(kw_only=True)
class CodecConfig:
    """What an encoder (pixels to a grid of vectors) and a decoder (back) say of themselves."""

    video: ClassVar[bool] = False  # whether the grid has a time

    @property
    def factor(self) -> tuple[int, int]:
        """Height and width in pixels of a place of the grid."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Channels of the vectors that an encoder gives and a decoder takes."""
        raise NotImplementedError


@dataclass(kw_only=True)
class EncoderConfig(CodecConfig):
    """Pixels to a grid of vectors."""


@dataclass(kw_only=True)
class DecoderConfig(CodecConfig):
    """A grid of vectors to pixels."""


# -- transformers ----------------------------------------------------------------------------------


@dataclass(kw_only=True)
class PatchCodec:
    """What the transformer over patches is, in both directions."""

    patch: tuple[int, int] = setting([8, 8], "height and width of a patch, in pixels", low=1)
    backbone: TransformerConfig = part(
        "backbone",
        {"kind": "transformer", "position": "learned-grid"},
        "the stack",
    )

    @property
    def factor(self) -> tuple[int, int]:
        return tuple(self.patch)  # type: ignore[return-value]

    @property
    def width(self) -> int:
        return self.backbone.width


@kind("encoder", "vit", builds="zoo.tokenizers.visual.codecs.vit:PatchEncoder")
@dataclass(kw_only=True)
class PatchEncoderConfig(PatchCodec, EncoderConfig):
    """Patches, then a transformer (ViT-VQGAN: Yu 2021, arXiv 2110.04627)."""


@kind("decoder", "vit", builds="zoo.tokenizers.visual.codecs.vit:PatchDecoder")
@dataclass(kw_only=True)
class PatchDecoderConfig(PatchCodec, DecoderConfig):
    """A transformer, then one linear map from each vector to its patch."""

    pixel_bias: bool = setting(
        True, "a bias for each pixel of a patch, or (a transposed convolution) for each channel"
    )


_SPATIAL = {"kind": "transformer", "depth": 4, "width": 512, "position": "learned-grid"}
_TEMPORAL = {"kind": "transformer", "depth": 4, "width": 512, "position": "rope", "causal": True}


@dataclass(kw_only=True)
class CausalVideoCodec:
    """What C-ViViT is, in both directions: frames by themselves, then places along time."""

    video: ClassVar[bool] = True
    patch: tuple[int, int] = setting([8, 8], "height and width of a patch, in pixels", low=1)
    frames: int = setting(2, "frames of a tubelet; the first frame stands alone", low=1)
    spatial: TransformerConfig = part("backbone", _SPATIAL, "over the places of one time")
    temporal: TransformerConfig = part("backbone", _TEMPORAL, "over the times of one place")
    time_leaks: bool = setting(
        False,
        "whether what a time says hangs on later ones too (public C-ViViTs): such codes are of a "
        "whole clip, and no picture is its first frame",
    )

    def check(self) -> None:
        if self.spatial.width != self.temporal.width:
            raise ConfigError(
                f"temporal.width: both stacks share their vectors, and {self.temporal.width} is "
                f"not spatial's {self.spatial.width}."
            )
        leak = self._leak()
        if leak is not None and not self.time_leaks:
            raise ConfigError(
                f"{leak}; what a time says must not hang on later ones, or a video cannot be "
                "continued and a picture is not its first frame (time_leaks=true allows it)."
            )
        if leak is None and self.time_leaks:
            raise ConfigError("time_leaks: nothing here sees later times; leave it false.")

    def _leak(self) -> str | None:
        """Returns what to change so that no later time is seen; None where none is."""
        if not self.temporal.causal:
            return "temporal.causal: must be true"
        for name, sequences in (("spatial", "frames"), ("temporal", "places")):
            stack = getattr(self, name)
            for block in (stack.block(index) for index in range(stack.depth)):
                part = block.convolution
                times = getattr(part, "times", None)
                if times is None or "convolution" not in block.order:
                    continue
                if not part.causal and times > 1:
                    return f"{name}.convolution.causal: must be true"
                if part.sequences != sequences:
                    return f"{name}.convolution.sequences: must be {sequences}"
        return None

    @property
    def factor(self) -> tuple[int, int]:
        return tuple(self.patch)  # type: ignore[return-value]

    @property
    def width(self) -> int:
        return self.spatial.width


@kind("encoder", "cvivit", builds="zoo.tokenizers.visual.codecs.cvivit:CausalVideoEncoder")
@dataclass(kw_only=True)
class CausalVideoEncoderConfig(CausalVideoCodec, EncoderConfig):
    """The first frame's patches and the rest's tubelets, all-to-all in space, then causal in time
    (Phenaki: Villegas 2022, arXiv 2210.02399, section 2.1)."""

    patch_norm: NormConfig | None = part(
        "norm", None, "norms on both sides of the map of a patch; null: none"
    )


@kind("decoder", "cvivit", builds="zoo.tokenizers.visual.codecs.cvivit:CausalVideoDecoder")
@dataclass(kw_only=True)
class CausalVideoDecoderConfig(CausalVideoCodec, DecoderConfig):
    """The mirror image: causal in time, then space, then a linear map to the pixels."""


# -- convolutions ----------------------------------------------------------------------------------


@dataclass(kw_only=True)
class ResidualConvCodec:
    """What VQ-GAN's network is, in both directions."""

    channels: int = setting(128, "at full resolution", low=1)
    multipliers: list[int] = setting(
        [1, 1, 2, 2, 4], "channels of each level over that, from full resolution down", low=1
    )
    blocks: int = setting(2, "residual blocks of a level", low=1)
    attention: list[int] = setting(
        [], "levels with attention after each block, 0 at full resolution", low=0
    )
    middle_attention: bool = setting(True, "attention between the last two blocks (Muse: none)")
    latent: int = setting(256, "channels d of the vectors", low=1)
    norm_groups: int = setting(32, "groups of the group norms", low=1)
    block_bias: bool = setting(True, "bias of the convolutions within blocks (MaskGIT: none)")
    shortcut: Literal["input", "output"] = setting(
        "input",
        "what the 1x1 convolution of a block that changes the width reads: the block's input, or "
        "(MaskGIT) what it adds to itself",
    )

    def check(self) -> None:
        for factor in self.multipliers:
            if self.channels * factor % self.norm_groups:
                raise ConfigError(
                    f"norm_groups: {self.channels * factor} channels do not divide into "
                    f"{self.norm_groups} groups."
                )
        if self.attention and max(self.attention) >= len(self.multipliers):
            raise ConfigError(
                f"attention: there are levels 0 to {len(self.multipliers) - 1}, not "
                f"{max(self.attention)}."
            )

    @property
    def factor(self) -> tuple[int, int]:
        return 2 ** (len(self.multipliers) - 1), 2 ** (len(self.multipliers) - 1)

    @property
    def width(self) -> int:
        return self.latent


@kind("encoder", "vqgan", builds="zoo.tokenizers.visual.codecs.conv:ResidualConvEncoder")
@dataclass(kw_only=True)
class ResidualConvEncoderConfig(ResidualConvCodec, EncoderConfig):
    """Residual convolutions that halve the picture from level to level (Esser 2020, arXiv
    2012.09841)."""

    halving: Literal["convolution", "mean"] = setting(
        "convolution", "how a level gets half as large: a convolution of stride 2, or means"
    )
    edge_kernel: int = setting(3, "of the convolution to the vectors (MaskGIT: 1)", low=1)
    edge_bias: bool = setting(True, "bias of the convolution from the pixels (MaskGIT: none)")


@kind("decoder", "vqgan", builds="zoo.tokenizers.visual.codecs.conv:ResidualConvDecoder")
@dataclass(kw_only=True)
class ResidualConvDecoderConfig(ResidualConvCodec, DecoderConfig):
    """Its mirror image, with one block more in each level."""

    blocks: int = setting(3, "residual blocks of a level", low=1)


@dataclass(kw_only=True)
class DiscreteConvCodec:
    """What the discrete VAE's network is, in both directions."""

    channels: int = setting(256, "at full resolution; they double from group to group", low=4)
    groups: int = setting(4, "of blocks, each at half the resolution of the one before", low=1)
    blocks: int = setting(2, "of a group", low=1)

    @property
    def factor(self) -> tuple[int, int]:
        return 2 ** (self.groups - 1), 2 ** (self.groups - 1)


@kind("encoder", "dvae", builds="zoo.tokenizers.visual.codecs.conv:DiscreteConvEncoder")
@dataclass(kw_only=True)
class DiscreteConvEncoderConfig(DiscreteConvCodec, EncoderConfig):
    """DALL-E's: bottleneck blocks and max-pooling, no norms (Ramesh 2021, arXiv 2102.12092,
    appendix A.1)."""

    @property
    def width(self) -> int:
        return self.channels * 2 ** (self.groups - 1)


@kind("decoder", "dvae", builds="zoo.tokenizers.visual.codecs.conv:DiscreteConvDecoder")
@dataclass(kw_only=True)
class DiscreteConvDecoderConfig(DiscreteConvCodec, DecoderConfig):
    """Its mirror image, with nearest neighbours in place of pooling."""

    start: int = setting(128, "channels d of the codes' vectors", low=1)

    @property
    def width(self) -> int:
        return self.start
