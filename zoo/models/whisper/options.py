"""What a person may ask of a transcription. Torch-free; an unknown or impossible option is an
error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from zoo.errors import ConfigError
from zoo.registry import setting
from zoo.registry.typed import validate

__all__ = ["SpeechOptions", "speech_options"]


@dataclass(kw_only=True)
class SpeechOptions:
    """Whisper's options. They are the paper's, but for `condition`, which is off, so that what was
    misheard once is not repeated in every window after."""

    language: str | None = setting(None, "what is spoken, by code or name; null listens first")
    task: Literal["transcribe", "translate"] = setting(
        "transcribe", "write what is said, or what it means in English"
    )
    times: bool = setting(True, "write times, which long sounds are cut by")
    words: bool = setting(False, "give every word its time and probability")
    # decoding
    beams: int = setting(
        1, "hypotheses kept while the temperature is 0; 1 is no beam search", low=1
    )
    patience: float = setting(1.0, "finished hypotheses waited for, over beams", above=0.0)
    length_penalty: float | None = setting(
        None, "hypotheses are ranked by ((5 + length) / 6) to this power; null: by length",
        low=0.0, high=1.0,
    )  # fmt: skip
    best_of: int = setting(1, "samples drawn while the temperature is above 0", low=1)
    temperatures: list[float] = setting(
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
        "tried in turn until a window's text is good enough",
        low=0.0,
    )
    seed: int | None = setting(None, "the same seed draws the same; null draws anew")
    max_new_tokens: int | None = setting(None, "of a window; null is half the context", low=1)
    # what counts as good enough
    compression: float | None = setting(
        2.4, "text that zlib makes so many times smaller repeats itself", above=0.0
    )
    log_probability: float | None = setting(-1.0, "least mean over the tokens")
    no_speech: float | None = setting(
        0.6, "above this probability of no speech, a window without confident text is silent",
        low=0.0, high=1.0,
    )  # fmt: skip
    silence: float | None = setting(
        None, "pauses (in s) longer than this around improbable words are skipped; needs words",
        above=0.0,
    )  # fmt: skip
    # what is put before
    prompt: str | None = setting(None, "text that might have come before: names, spelling, style")
    keep_prompt: bool = setting(False, "put it before every window, not only the first")
    condition: bool = setting(False, "put the text of the windows before in front of each")
    # what may be written
    suppress: list[int] = setting(
        [-1], "tokens that are never written; -1: signs that are no speech"
    )
    suppress_blank: bool = setting(True, "a window's text does not begin blank or empty")
    max_first_time: float | None = setting(
        1.0, "latest beginning of a window's first words, in s", above=0.0
    )
    clips: list[float] = setting([], "only these stretches: start, end, start, …, in s", low=0.0)
    prepended: str = setting("\"'“¿([{-", "punctuation that belongs to the word after it")
    appended: str = setting(
        "\"'.。,，!！?？:：”)]}、", "punctuation that belongs to the word before it"
    )

    def check(self) -> None:
        if not self.temperatures:
            raise ConfigError("temperatures: at least one is needed; 0 is greedy.")
        if self.silence is not None and not self.words:
            raise ConfigError("silence: pauses are measured between words; set words=true.")
        if self.words and not self.times:
            raise ConfigError("words: their times need times=true.")
        if self.clips != sorted(self.clips):
            raise ConfigError(f"clips: times must not go back: {self.clips}.")


def speech_options(
    given: Mapping[str, Any] | SpeechOptions | None = None, **more: Any
) -> SpeechOptions:
    """Returns checked options; raises ConfigError for one that does not exist, with the nearest."""
    if isinstance(given, SpeechOptions):
        given = vars(given)
    return validate(SpeechOptions, {**(given or {}), **more}, "")
