"""Schemas of the objectives of visual tokenizers. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.registry import kind, part, setting
from zoo.training.schema import ObjectiveConfig


@dataclass(kw_only=True)
class PerceptualConfig:
    """A frozen network whose features pictures and reconstructions are compared by."""

    weight: float = setting(1.0, "of this loss beside the decoder's", low=0.0)


@kind("perceptual", "features", builds="zoo.training.codes.perceptual:FeatureDistance")
@dataclass(kw_only=True)
class FeatureDistanceConfig(PerceptualConfig):
    """Blocks of a vision model of ours, by name: squared distance of their outputs at unit length,
    as LPIPS without learned weights (Zhang et al. 2018, arXiv 1801.03924, section 3.1)."""

    model: str = setting("vit-digits", "a vision model's name, with its weights")
    layers: list[int] = setting([], "which blocks are compared, from 0; none: all of them", low=0)


@kind("perceptual", "lpips", builds="zoo.training.codes.lpips:LearnedDistance")
@dataclass(kw_only=True)
class LearnedDistanceConfig(PerceptualConfig):
    """LPIPS over VGG16, as VQ-GAN is trained with (Zhang et al. 2018, arXiv 1801.03924): squared
    distance of features at unit length, weighted by channel. Its weights are yours to bring."""

    folder: str = setting(
        "", "holds torchvision's vgg16 and the `lpips` package's vgg.pth, or both in one file"
    )
    allow_pickle: bool = setting(False, "also read .pth files there, by weights_only")


@dataclass(kw_only=True)
class AdversaryConfig:
    """A network that learns to tell reconstructions from pictures, against the decoder."""

    weight: float = setting(0.8, "of the adversarial loss, times the adaptive weight", low=0.0)
    start: int = setting(0, "step from which both learn from each other (taming: 250001)", low=0)
    limit: float = setting(1e4, "the adaptive weight is at most this", above=0.0)
    loss: Literal["hinge", "vanilla"] = setting("hinge", "what the network is trained by")


@kind("adversary", "patch", builds="zoo.training.codes.adversary:PatchDiscriminator")
@dataclass(kw_only=True)
class PatchDiscriminatorConfig(AdversaryConfig):
    """Convolutions that judge overlapping patches (Isola et al. 2017, arXiv 1611.07004, section
    3.2.2), with the weight of VQ-GAN (Esser et al. 2020, arXiv 2012.09841, equation 7)."""

    channels: int = setting(64, "after the first convolution; they double up to eight times", low=1)
    layers: int = setting(3, "convolutions that halve the picture", low=1)
    norm: Literal["batch", "none"] = setting("batch", "after the convolutions within")


@kind("objective", "reconstruction", builds="zoo.training.codes.reconstruction:Reconstruction")
@dataclass(kw_only=True)
class ReconstructionObjectiveConfig(ObjectiveConfig):
    """The decoder's loss and the quantizer's, and those of other networks; measures PSNR, what the
    codes are used for and, where the data has a judge, whether it still reads what was encoded."""

    weight: float = setting(1.0, "of the decoder's loss", low=0.0)
    collapse: float = setting(
        0.1, "warn when less than this share of the codes is in use", low=0.0, high=1.0
    )
    perceptual: PerceptualConfig | None = part("perceptual", None, "features to compare; or none")
    adversary: AdversaryConfig | None = part("adversary", None, "a network to deceive; or none")
