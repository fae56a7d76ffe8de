"""Schemas of the objectives of models that draw. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.registry import kind, setting
from zoo.training.schema import ObjectiveConfig


@dataclass(kw_only=True)
class CodesObjectiveConfig(ObjectiveConfig):
    """What both ways of learning codes share."""

    drop: float = setting(
        0.1,
        "chance that a sample's prompt is left out, so that guidance has something to lead away "
        "from; 0 leaves that branch untrained",
        low=0.0,
        high=1.0,
    )
    smoothing: float = setting(0.0, "label smoothing", low=0.0, high=1.0)
    samples: int = setting(
        0,
        "prompts of the held-out data that are drawn and judged when measuring; 0 for none",
        low=0,
    )
    guidance: float = setting(2.0, "of those drawings", low=0.0)
    sheet: int = setting(16, "of those drawings, how many go onto the run's sheets", low=0)


@kind("objective", "next-code", builds="zoo.training.generation.objectives:NextCode")
@dataclass(kw_only=True)
class NextCodeConfig(CodesObjectiveConfig):
    """Tell each code from the prompt and the codes before it (Ramesh et al. 2021, section 2.2)."""

    text: float = setting(
        0.125,
        "share of the loss that the prompt's own tokens are, of models with a text_head",
        low=0.0,
        high=1.0,
    )


@kind("objective", "masked-codes", builds="zoo.training.generation.objectives:MaskedCodes")
@dataclass(kw_only=True)
class MaskedCodesConfig(CodesObjectiveConfig):
    """Tell hidden codes from the others and the prompt (Chang et al. 2022, arXiv 2202.04200; Chang
    et al. 2023, arXiv 2301.00704, section 2.6)."""

    schedule: Literal["cosine", "linear", "square"] = setting(
        "cosine", "how the hidden share depends on a number drawn evenly from 0 to 1"
    )
    least: float = setting(0.0, "smallest share that is hidden (MaskGIT: 0.5)", low=0.0, high=1.0)
    first_frame: float = setting(
        0.0,
        "chance that a batch of clips is cut to its first frames, which are pictures: joint "
        "training (Villegas et al. 2022, arXiv 2210.02399, section 2.2)",
        low=0.0,
        high=1.0,
    )
    passes: int = setting(8, "of the drawings that are judged", low=1)
