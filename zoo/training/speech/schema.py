"""Schemas of the speech objectives. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.registry import kind, setting
from zoo.training.schema import ObjectiveConfig


@dataclass(kw_only=True)
class ErrorRatesConfig(ObjectiveConfig):
    """What objectives that count errors of texts share."""

    normalizer: Literal["none", "basic", "english"] = setting(
        "none",
        "what said and heard are freed of before errors are counted: nothing; capitals and signs; "
        "also spellings of English words and numbers (Whisper's; the extra `wer`)",
    )


@kind("objective", "ctc", builds="zoo.training.speech.ctc:CTCObjective")
@dataclass(kw_only=True)
class CTCObjectiveConfig(ErrorRatesConfig):
    """Connectionist temporal classification (Graves et al. 2006); measures word and character
    error rates of greedy decoding."""


@kind("objective", "transducer", builds="zoo.training.speech.transducer:TransducerObjective")
@dataclass(kw_only=True)
class TransducerObjectiveConfig(ErrorRatesConfig):
    """The transducer's loss over all alignments (Graves 2012, arXiv 1211.3711), with durations
    where the model has them (Xu et al. 2023, arXiv 2304.06795); measures word and character error
    rates of greedy decoding."""

    ctc: float = setting(
        0.0, "share of a CTC loss on the model's second head (model.ctc=true)", low=0.0, high=0.9
    )
    sigma: float = setting(
        0.0,
        "of a model with durations, taken off every label's log-probability, so that long "
        "durations are learned (the paper: 0.05)",
        low=0.0,
    )
