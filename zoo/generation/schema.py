"""The options of decoding. Torch-free; an unknown or impossible one is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from zoo.errors import ConfigError
from zoo.registry import setting
from zoo.registry.typed import validate

__all__ = ["DecodingOptions", "options"]


@dataclass(kw_only=True)
class DecodingOptions:
    """What a person may ask of decoding. The defaults are greedy."""

    max_new_tokens: int = setting(128, "tokens at most, the end token among them", low=1)
    min_new_tokens: int = setting(0, "the end token is forbidden before so many", low=0)
    # sampling
    temperature: float = setting(0.0, "0 is greedy; 1 the model's own distribution", low=0.0)
    top_k: int | None = setting(None, "only the k most probable tokens", low=1)
    top_p: float | None = setting(
        None, "only the most probable tokens that make up p", above=0.0, high=1.0
    )
    min_p: float | None = setting(
        None, "only tokens with p times the best one's probability", low=0.0, high=1.0
    )
    typical: float | None = setting(
        None, "only tokens near the expected surprise, making up this much", above=0.0, high=1.0
    )
    repetition_penalty: float = setting(
        1.0, "scores of tokens already there are divided by it", above=0.0
    )
    seed: int | None = setting(None, "the same seed draws the same; null draws anew")
    # beams
    beams: int = setting(1, "hypotheses kept; 1 is no beam search", low=1)
    length_penalty: float = setting(1.0, "scores are divided by length to this power", low=0.0)
    length_norm: Literal["power", "gnmt"] = setting(
        "power",
        "what they are divided by: length ^ penalty, or ((5 + length) / 6) ^ penalty "
        "(Wu et al. 2016, arXiv 1609.08144)",
    )
    length_counts_end: bool = setting(True, "whether the end token counts in that length")
    patience: float = setting(1.0, "finished hypotheses waited for, over beams", above=0.0)
    stopping: Literal["best", "first"] = setting(
        "best",
        "best: when no open beam can do better than those (transformers); first: when there are so "
        "many, and those are kept (fairseq, Whisper; Kasai et al. 2022, arXiv 2204.05424)",
    )
    results: int = setting(1, "hypotheses returned per prompt (n-best), or samples drawn", low=1)
    diversity: float = setting(0.0, "penalty on tokens that earlier beam groups chose", low=0.0)
    groups: int = setting(1, "groups of beams that diversity keeps apart", low=1)
    # ending
    stop: list[str] = setting([], "texts that end it; they are not part of the answer")
    end: list[int] | None = setting(None, "ids that end it; null takes the model's own")

    def check(self) -> None:
        if self.beams > 1 and self.temperature > 0:
            raise ConfigError("beams: beam search takes no temperature; set one of the two.")
        if self.results > self.beams and self.temperature == 0:
            raise ConfigError(
                f"results: {self.results} results need as many beams, or a temperature above 0."
            )
        if self.beams % self.groups:
            raise ConfigError(
                f"groups: {self.beams} beams do not divide into {self.groups} groups."
            )
        sampling = {n: getattr(self, n) for n in ("top_k", "top_p", "min_p", "typical")}
        asked = [name for name, value in sampling.items() if value is not None]
        if asked and self.temperature == 0:
            raise ConfigError(f"{asked[0]}: choosing among tokens needs a temperature above 0.")


def options(
    given: Mapping[str, Any] | DecodingOptions | None = None, **more: Any
) -> DecodingOptions:
    """Returns checked options; raises ConfigError for one that does not exist, with the nearest."""
    if isinstance(given, DecodingOptions):
        given = vars(given)
    return validate(DecodingOptions, {**(given or {}), **more}, "")


# A callback sees the tokens so far (b n) and the scores (b v) and returns scores.
LogitsCallback = Callable[[Any, Any], Any]
