"""Schemas of the objectives of visual tokenizers. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.registry import kind, setting
from zoo.training.schema import ObjectiveConfig


@kind("objective", "reconstruction", builds="zoo.training.codes.reconstruction:Reconstruction")
@dataclass(kw_only=True)
class ReconstructionObjectiveConfig(ObjectiveConfig):
    """The decoder's loss and the quantizer's; measures PSNR, what the codes are used for and, where
    the data has a judge, whether it still reads what was encoded."""

    weight: float = setting(1.0, "of the decoder's loss", low=0.0)
    collapse: float = setting(
        0.1, "warn when less than this share of the codes is in use", low=0.0, high=1.0
    )
