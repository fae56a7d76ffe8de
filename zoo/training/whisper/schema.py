"""Schema of the transcription objective. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.registry import kind, setting
from zoo.training.speech.schema import ErrorRatesConfig


@kind("objective", "transcription", builds="zoo.training.whisper.transcription:Transcription")
@dataclass(kw_only=True)
class TranscriptionConfig(ErrorRatesConfig):
    """Write what is said token by token, with and without times (Radford et al. 2022, section 2.3);
    measures the word error rate of greedy decoding."""

    language: str = setting("en", "what is spoken, by code or name")
    times: float = setting(
        0.5, "share of the samples that are written with their times", low=0.0, high=1.0
    )
    shift: bool = setting(True, "sounds begin anywhere in their window, in training")
    silent: float = setting(
        0.0, "share of the windows that nothing is said in: token no speech", low=0.0, high=1.0
    )
    smoothing: float = setting(0.0, "label smoothing", low=0.0, high=1.0)
