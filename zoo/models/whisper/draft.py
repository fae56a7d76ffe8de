"""A smaller Whisper that guesses what a larger one writes (distil-whisper, Gandhi et al. 2023,
arXiv 2311.00430, section 6)."""

# b windows, m mel filters, t frames, s positions of the encoder, d width

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.generation.speculative import Report

__all__ = ["Draft", "Drafting"]


@dataclass
class Draft:
    """The smaller model beside windows that are being decoded."""

    model: Any
    memory: Tensor  # b s d, what it reads of the windows
    report: Report


class Drafting:
    """A smaller model beside a transcription. One whose encoder has the same weights, as distilled
    models do, reads what the larger one's encoder made of the sound."""

    def __init__(self, model: Any, smaller: Any, report: Report) -> None:
        """Raises ConfigError for a model that cannot guess for this one."""
        _check(model, smaller)
        self.smaller, self.report = smaller, report
        self.shared = _same_encoder(model, smaller)

    def beside(self, windows: Tensor, memory: Tensor) -> Draft:  # b m t, b s d
        """Returns it beside windows of which the larger model's encoder made `memory`."""
        own = memory if self.shared else self.smaller._memory(windows)
        return Draft(self.smaller, own, self.report)


def _check(model: Any, smaller: Any) -> None:
    ours: Any = model.config
    theirs: Any = getattr(smaller, "config", None)
    kind = getattr(theirs, "zoo_kind", type(smaller).__name__)
    if kind != ours.zoo_kind:
        raise ConfigError(f"draft: a {kind} model guesses nothing for a {ours.zoo_kind}.")
    for what, same in (
        ("vocabulary and languages", ours.layout == theirs.layout),
        ("windows and spectrogram", ours.sound == theirs.sound),
        ("context", ours.decoder.length <= theirs.decoder.length),
    ):
        if not same:
            raise ConfigError(
                f"draft: its {what} are not this model's; take one of the same family, such as its "
                "distilled one."
            )


def _same_encoder(model: Any, smaller: Any) -> bool:
    if model.config.encoder != smaller.config.encoder:
        return False
    pairs = [(model.sound, smaller.sound), (model.encoder, smaller.encoder)]
    for ours, theirs in pairs:
        mine, other = ours.state_dict(), theirs.state_dict()
        if mine.keys() != other.keys():
            return False
        for name, tensor in mine.items():
            same = tensor.device == other[name].device and tensor.dtype == other[name].dtype
            if not same or not torch.equal(tensor, other[name]):
                return False
    return True
