"""Schema of the spoken data sets. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.data.schema import DataConfig
from zoo.registry import kind, section, setting


@dataclass(kw_only=True)
class SpecAugment:
    """Random changes of training features (Park et al. 2019, arXiv 1904.08779); all off unless
    given."""

    frequency_masks: int = setting(0, "bands of features that are blanked out", low=0)
    frequency_width: int = setting(27, "features of a band, at most", low=1)
    time_masks: int = setting(0, "stretches of time that are blanked out", low=0)
    time_width: float = setting(
        0.05, "of a stretch, at most, as a share of the utterance", low=0.0, high=1.0
    )
    noise: float = setting(0.0, "deviation of noise on every feature", low=0.0)
    tilt: float = setting(
        0.0,
        "deviation of a slope and an offset over the features, as another microphone's",
        low=0.0,
    )


@kind("data", "spoken", builds="zoo.data.speech.spoken:SpokenData")
@dataclass(kw_only=True)
class SpokenConfig(DataConfig):
    """Sentences of a small grammar, synthesised by espeak-ng in many voices; the test split's are
    not heard in training. Needs the extra `speech`."""

    grammar: Literal["digits", "commands"] = setting(
        "digits", "strings of one to seven digits, or short commands"
    )
    train: int = setting(6000, "utterances to train on", low=1)
    test: int = setting(400, "utterances held out", low=1)
    bundle: int = setting(
        1,
        "utterances of like length that make one sample of the training split, which saves the "
        "padding between short and long ones; a batch of 32 is then trainer.batch=1 of 32",
        low=1,
    )
    silence: float = setting(
        0.0,
        "seconds of near silence, at most, before and after each training utterance, and now and "
        "then between two words",
        low=0.0,
    )
    paused: float = setting(1.0, "share of the training utterances that get it", low=0, high=1)
    noise: float = setting(
        0.0,
        "training clips beside the utterances in which nothing is said, as a share of them",
        low=0.0,
    )
    augment: SpecAugment = section(SpecAugment, doc="random changes, in training only")
