"""Schemas of the text tokenizers. Torch-free.

A kind is a scheme; a node is a family's use of it: its special tokens, where they stand, what is
done to the text before it is cut. Settings of the *pipeline* (each kind lists them) that are null
follow the files: a `tokenizer.json` says all of them, bare vocabulary files leave them to the
scheme's usual value. One that is given lies over the files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from zoo.errors import ConfigError
from zoo.registry import kind, section, setting
from zoo.tokenizers.schema import TokenizerConfig

# What a folder's tokenizer may be read from; none of it can carry code.
FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.spm",
    "target_vocab.json",
    "vocab-src.json",
    "vocab-tgt.json",
    "*.tiktoken",
)
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(kw_only=True)
class SpecialTokens:
    """Which token plays which role. A token that the vocabulary lacks is added at its end."""

    bos: str | None = setting(None, "begins a text")
    eos: str | None = setting(None, "ends a text, and a generation")
    unk: str | None = setting(None, "stands for what the vocabulary cannot spell")
    sep: str | None = setting(None, "between and after texts, in classifiers")
    pad: str | None = setting(None, "fills a batch up")
    cls: str | None = setting(None, "what a classifier reads")
    mask: str | None = setting(None, "hides a token in masked language modelling")
    extra: list[str] = setting([], "more tokens that are never cut and are skipped on request")
    strip_left: list[str] = setting([], "those of them that swallow the blanks before them")

    def tokens(self) -> list[str]:
        """Returns all of them in the order in which they get ids, each once."""
        named = [getattr(self, role) for role in ROLES]
        return list(dict.fromkeys(token for token in [*named, *self.extra] if token))


@dataclass(kw_only=True)
class TextTokenizerConfig(TokenizerConfig):
    """What every text tokenizer is asked."""

    zoo_kind: ClassVar[str]  # set by @kind
    zoo_builds: ClassVar[str]
    pipeline: ClassVar[tuple[str, ...]] = ()

    folder: str | None = setting(None, "files that ship with zoo, below zoo/assets")
    repo: str | None = setting(None, "hub repository that holds the files, org/name")
    revision: str | None = setting(None, "commit of the repository, 40 hex digits; null is main")
    apart: bool = setting(
        False, "whether the files lie in that repository alone, not beside a model's weights"
    )
    special: SpecialTokens = section(SpecialTokens, doc="special tokens by role")
    single: str | None = setting(
        None, "layout of one text, as '[CLS] $A [SEP]'; null follows the files"
    )
    pair: str | None = setting(
        None, "layout of two, as '[CLS] $A [SEP] $B:1 [SEP]:1' (:n is the segment)"
    )
    padding: Literal["right", "left"] = setting("right", "side on which batches are filled up")
    truncation: Literal["right", "left"] = setting("right", "side on which long texts are cut")
    length: int | None = setting(None, "most tokens that the model takes; null: no limit", low=1)
    chat: str | None = setting(
        None, "name of a chat template that ships with zoo; null takes the files' own"
    )
    reads: list[str] = setting(
        [], "public tokenizer classes and model types whose folders this node reads"
    )

    def check(self) -> None:
        if self.folder is not None and not re.fullmatch(r"\w[\w-]*(/\w[\w-]*)*", self.folder):
            raise ConfigError(f"folder: must be a name below zoo/assets, got {self.folder!r}.")
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ConfigError(f"revision: must be 40 hex digits, got {self.revision!r}.")
        if self.apart and self.repo is None:
            raise ConfigError("apart: name the repository (repo=) that holds the files.")
        for key, needed, refused in (("single", "$A", "$B"), ("pair", "$B", None)):
            layout = getattr(self, key)
            if layout is not None and (
                needed not in layout or "$A" not in layout or (refused and refused in layout)
            ):
                raise ConfigError(f"{key}: {layout!r} must hold {needed} as the text's place.")

    def pipeline_settings(self) -> dict[str, object]:
        """Returns the settings of the pipeline that are given, that is not null."""
        return {key: getattr(self, key) for key in self.pipeline if getattr(self, key) is not None}


@kind("tokenizer", "byte-bpe", builds="zoo.tokenizers.text.schemes.byte_bpe:ByteBPETokenizer")
@dataclass(kw_only=True)
class ByteBPEConfig(TextTokenizerConfig):
    """Byte-pair encoding over bytes: nothing is unknown, every text comes back exactly (Radford
    2019, section 2.2)."""

    pipeline: ClassVar[tuple[str, ...]] = (
        "pattern",
        "prefix_space",
        "compose",
        "lowercase",
        "ascii",
    )

    pattern: str | None = setting(
        None, "how words are told: gpt2, gpt4, qwen2, bloom, clip, none or a regular expression"
    )
    prefix_space: bool | None = setting(None, "whether a blank is put before the text")
    compose: bool | None = setting(None, "whether characters are composed first (Unicode NFC)")
    lowercase: bool | None = setting(
        None, "whether white space becomes one blank and letters lower case (CLIP)"
    )
    ascii: bool | None = setting(
        None,
        "whether characters that are not ASCII are dropped, and blanks at the ends (DALL-E mini)",
    )
    word_end: str = setting("", "mark on the last piece of a word (CLIP: </w>); bare files only")
    vocab_file: str = setting("vocab.json", "name of the vocabulary, of bare files")
    merges_file: str = setting("merges.txt", "name of the list of merges, of bare files")


@kind("tokenizer", "wordpiece", builds="zoo.tokenizers.text.schemes.wordpiece:WordPieceTokenizer")
@dataclass(kw_only=True)
class WordPieceConfig(TextTokenizerConfig):
    """Longest pieces first, inner ones marked ## (Devlin 2018; Schuster and Nakajima 2012)."""

    pipeline: ClassVar[tuple[str, ...]] = ("lowercase", "strip_accents", "split_chinese")

    lowercase: bool | None = setting(None, "whether the text is put in lower case; usually true")
    strip_accents: bool | None = setting(
        None, "whether accents are dropped; usually whenever lowercase is"
    )
    split_chinese: bool | None = setting(
        None, "whether each Chinese character is a word of its own; usually true"
    )


@kind("tokenizer", "unigram", builds="zoo.tokenizers.text.schemes.unigram:UnigramTokenizer")
@dataclass(kw_only=True)
class UnigramConfig(TextTokenizerConfig):
    """The most probable cut under a unigram model, SentencePiece's default (Kudo 2018, arXiv
    1804.10959)."""

    pipeline: ClassVar[tuple[str, ...]] = (
        "spaces",
        "lowercase",
        "strip_accents",
        "straight_quotes",
    )

    spaces: Literal["split", "sentencepiece"] | None = setting(
        None, "any white space parts words, or exactly what the SentencePiece file says"
    )
    lowercase: bool | None = setting(None, "whether the text is put in lower case first")
    strip_accents: bool | None = setting(None, "whether accents are dropped first (XLNet)")
    straight_quotes: bool | None = setting(None, "whether `` and '' become one quote (XLNet)")
    split_number_commas: bool = setting(
        False, "whether pieces such as '9,' are avoided (XLNet, ALBERT); bare spiece files only"
    )
    sentinels: int = setting(0, "tokens <extra_id_n> at the end (T5); bare files only", low=0)
    fairseq_ids: bool = setting(
        False, "ids shifted to <s> <pad> </s> <unk>, as XLM-R does; bare files only"
    )


@kind(
    "tokenizer",
    "sentencepiece-bpe",
    builds="zoo.tokenizers.text.schemes.sentencepiece_bpe:SentencePieceBPETokenizer",
)
@dataclass(kw_only=True)
class SentencePieceBPEConfig(TextTokenizerConfig):
    """Byte-pair encoding over characters with bytes for what is unknown, as SentencePiece does it
    (Llama 1 and 2)."""

    pipeline: ClassVar[tuple[str, ...]] = ("prefix_space", "legacy")

    prefix_space: bool | None = setting(None, "whether a blank is put before the text")
    legacy: bool | None = setting(
        None, "put it before every text between special tokens too, and before leading blanks"
    )


@kind("tokenizer", "word-bpe", builds="zoo.tokenizers.text.schemes.word_bpe:WordBPETokenizer")
@dataclass(kw_only=True)
class WordBPEConfig(TextTokenizerConfig):
    """Byte-pair encoding over words whose last piece ends in </w> (Sennrich 2015; GPT-1)."""

    pipeline: ClassVar[tuple[str, ...]] = ("lowercase",)

    lowercase: bool | None = setting(None, "whether the text is put in lower case; usually true")


@kind("tokenizer", "byte", builds="zoo.tokenizers.text.schemes.plain:ByteTokenizer")
@dataclass(kw_only=True)
class ByteConfig(TextTokenizerConfig):
    """One token per byte of UTF-8 (ByT5, Xue 2021; Perceiver, Jaegle 2021). Needs no files."""

    reserved: list[str] = setting(
        ["<pad>", "</s>", "<unk>"], "tokens before the 256 bytes, in the order of their ids"
    )
    sentinels: int = setting(0, "tokens <extra_id_n> after the bytes (ByT5: 125)", low=0)
    broken: Literal["replace", "drop"] = setting(
        "replace", "what becomes of bytes that are no UTF-8 when decoding"
    )


@kind("tokenizer", "character", builds="zoo.tokenizers.text.schemes.plain:CharacterTokenizer")
@dataclass(kw_only=True)
class CharacterConfig(TextTokenizerConfig):
    """One token per character seen in training; others are unknown."""


@kind("tokenizer", "marian", builds="zoo.tokenizers.text.schemes.marian:MarianTokenizer")
@dataclass(kw_only=True)
class MarianConfig(TextTokenizerConfig):
    """A SentencePiece model per language over a vocabulary of its own (Marian, OPUS-MT)."""


@kind("tokenizer", "moses-bpe", builds="zoo.tokenizers.text.schemes.moses_bpe:MosesBPETokenizer")
@dataclass(kw_only=True)
class MosesBPEConfig(TextTokenizerConfig):
    """Moses' word rules, then byte-pair encoding, a vocabulary per language (fairseq's WMT models,
    FSMT)."""

    languages: list[str] = setting([], "codes of source and target, as [de, en]")
    lowercase: bool = setting(False, "whether the text is put in lower case")

    def check(self) -> None:
        super().check()
        if len(self.languages) not in (0, 2):
            raise ConfigError(f"languages: needs two codes, source and target: {self.languages}.")


@kind(
    "tokenizer",
    "youtokentome",
    builds="zoo.tokenizers.text.schemes.youtokentome:YouTokenToMeTokenizer",
)
@dataclass(kw_only=True)
class YouTokenToMeConfig(TextTokenizerConfig):
    """Byte-pair encoding by rules of numbers, as YouTokenToMe writes them (ruDALL-E)."""

    model_file: str = setting("bpe.model", "name of the file")
    lowercase: bool = setting(False, "whether the text is put in lower case first")
