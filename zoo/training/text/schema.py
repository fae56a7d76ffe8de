"""Schemas of the text objectives. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.registry import kind, setting
from zoo.training.schema import ObjectiveConfig


@kind("objective", "next-token", builds="zoo.training.text.next_token:NextToken")
@dataclass(kw_only=True)
class NextTokenConfig(ObjectiveConfig):
    """Predict each token from those before it (GPT); with `prefix`, from a prefix that is read in
    both directions (prefix-LM, Raffel et al. 2020, section 3.2.1)."""

    prefix: bool = setting(False, "a random part at the start is read whole and not predicted")
    smoothing: float = setting(0.0, "label smoothing", low=0.0, high=1.0)


@kind("objective", "masked-tokens", builds="zoo.training.text.masked:MaskedTokens")
@dataclass(kw_only=True)
class MaskedTokensConfig(ObjectiveConfig):
    """Recover hidden tokens from both sides (Devlin et al. 2018, arXiv 1810.04805, section 3.1)."""

    rate: float = setting(0.15, "share of the tokens that are predicted", above=0.0, high=1.0)
    masked: float = setting(0.8, "of these, replaced by the mask token", low=0.0, high=1.0)
    random: float = setting(
        0.1, "of these, replaced by any token; the rest stays", low=0.0, high=1.0
    )
    whole_words: bool = setting(False, "hide all pieces of a word or none")
    next_sentence: bool = setting(False, "also tell whether the second half follows the first")


@kind("objective", "span-corruption", builds="zoo.training.text.spans:SpanCorruption")
@dataclass(kw_only=True)
class SpanCorruptionConfig(ObjectiveConfig):
    """Write the spans that sentinels stand for (Raffel et al. 2020, arXiv 1910.10683, 3.1.4)."""

    rate: float = setting(0.15, "share of the tokens in spans", above=0.0, high=0.9)
    length: float = setting(3.0, "mean length of a span", low=1.0)
    sentinels: int = setting(
        100, "sentinels at most: <extra_id_n>, else the last tokens of the vocabulary", low=1
    )


@kind("objective", "ul2", builds="zoo.training.text.spans:MixtureOfDenoisers")
@dataclass(kw_only=True)
class MixtureOfDenoisersConfig(ObjectiveConfig):
    """Short spans, long or many spans, and continuation, each under its own mode token (Tay et al.
    2022, arXiv 2205.05131, section 3.1.1)."""

    sentinels: int = setting(
        100, "sentinels at most: <extra_id_n>, else the last tokens of the vocabulary", low=1
    )
    modes: list[int] = setting([], "ids of the mode tokens R, X and S; none are put in when empty")


@kind("objective", "permutation", builds="zoo.training.text.permuted:Permutation")
@dataclass(kw_only=True)
class PermutationConfig(ObjectiveConfig):
    """Predict the last tokens of a random order (Yang et al. 2019, arXiv 1906.08237, 2.3)."""

    predicted: float = setting(
        0.17, "share of the tokens predicted (1/K, K = 6)", above=0.0, high=0.9
    )


@kind("objective", "translation", builds="zoo.training.text.translation:Translation")
@dataclass(kw_only=True)
class TranslationConfig(ObjectiveConfig):
    """Write the target of a source; measures whether greedy decoding writes it exactly."""

    smoothing: float = setting(0.1, "label smoothing", low=0.0, high=1.0)
    exact: bool = setting(True, "measure exact match, which decodes every held-out sample")


@kind("objective", "answers", builds="zoo.training.text.answers:Answers")
@dataclass(kw_only=True)
class AnswersConfig(ObjectiveConfig):
    """Write what the assistant says in conversations, with pictures or without: the loss is on
    answers alone (Liu et al. 2023, arXiv 2304.08485, section 4.2)."""

    smoothing: float = setting(0.0, "label smoothing", low=0.0, high=1.0)
    pack: int | None = setting(
        None,
        "put samples together into rows of up to so many places, pictures included, in which none "
        "sees another; null: a row each",
        low=2,
    )


@kind("objective", "tagging", builds="zoo.training.text.heads:Tagging")
@dataclass(kw_only=True)
class TaggingConfig(ObjectiveConfig):
    """Name the class of each token (Devlin et al. 2018, arXiv 1810.04805, section 5.3)."""

    smoothing: float = setting(0.0, "label smoothing", low=0.0, high=1.0)


@kind("objective", "answer-span", builds="zoo.training.text.heads:AnswerSpan")
@dataclass(kw_only=True)
class AnswerSpanConfig(ObjectiveConfig):
    """Point at the first and the last token of an answer (Devlin et al. 2018, arXiv 1810.04805,
    section 4.2)."""

    longest: int = setting(30, "tokens of an answer at most, when measured", low=1)
