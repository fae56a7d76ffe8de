"""Training a vocabulary on any iterable of texts."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from zoo.errors import ConfigError, DataError
from zoo.registry import names, read_mapping, resolve
from zoo.registry.schema import merge
from zoo.tokenizers.text.schema import TextTokenizerConfig
from zoo.tokenizers.text.tokenizer import TextTokenizer

__all__ = ["train_tokenizer"]

# Special tokens and layout of a bare kind, when none are given.
_USUAL: dict[str, dict[str, Any]] = {
    "byte-bpe": {"special": {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "pad": "<|pad|>"}},
    "wordpiece": {
        "special": {
            "unk": "[UNK]",
            "sep": "[SEP]",
            "pad": "[PAD]",
            "cls": "[CLS]",
            "mask": "[MASK]",
        },
        "single": "[CLS] $A [SEP]",
        "pair": "[CLS] $A [SEP] $B:1 [SEP]:1",
    },
    "unigram": {
        "special": {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
        "single": "$A </s>",
        "spaces": "split",
    },
    "sentencepiece-bpe": {
        "special": {"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
        "single": "<s> $A",
    },
    "word-bpe": {"special": {"unk": "<unk>", "pad": "<pad>"}},
    "character": {"special": {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>"}},
}


def train_tokenizer(
    kind: str,
    texts: Iterable[str],
    vocabulary: int = 4096,
    special: Mapping[str, Any] | None = None,
    **settings: Any,
) -> TextTokenizer:
    """Returns a tokenizer with a new vocabulary. The same texts in the same order give the same
    one, but for unigram, which the library trains with sums whose order changes from run to run.

    Args:
        kind: a scheme (byte-bpe, wordpiece, unigram, sentencepiece-bpe, word-bpe, character), or a
            tokenizer node whose scheme, special tokens and layout are taken over (bert, gpt2, …).
        texts: any iterable of strings; it is read once.
        vocabulary: how many tokens there are at most, special ones included.
        special: tokens by role, `{"eos": "</s>", "pad": "<pad>", "extra": [...]}`; None takes the
            usual ones.
        settings: other keys of the kind's schema (`lowercase=True`, `pattern="gpt4"`, …).
    Raises: ConfigError, DataError when there is no text.
    """
    if vocabulary < 1:
        raise ConfigError(f"vocabulary: must be at least 1, got {vocabulary}.")
    base = {"kind": kind, **_USUAL.get(kind, {})}
    if kind not in _USUAL and kind in names("tokenizer"):
        base = read_mapping("tokenizer", kind)
    if special is not None:
        base = {key: value for key, value in base.items() if key != "special"}
        settings = {"special": dict(special), **settings}
        lost = [key for key in ("single", "pair") if _names_lost(base.get(key), special)]
        base = {key: value for key, value in base.items() if key not in lost}
    config = resolve("tokenizer", merge(base, settings))
    if not isinstance(config, TextTokenizerConfig):
        raise ConfigError(f"{kind!r} is no tokenizer of text.")
    module, _, name = config.zoo_builds.partition(":")
    scheme = getattr(importlib.import_module(module), name)
    counted = _Counted(texts)
    spec = scheme.train(config, counted, vocabulary)
    if not counted.characters:
        raise DataError("There is no text to train a tokenizer on.")
    config.repo = config.revision = config.folder = None
    config.reads = []
    return scheme(config, spec=spec)


def _names_lost(layout: str | None, special: Mapping[str, Any]) -> bool:
    """Returns whether a layout names tokens that the given special tokens no longer hold."""
    given = {*special.get("extra", ()), *(v for k, v in special.items() if k != "extra")}
    words = [word.rpartition(":")[0] or word for word in (layout or "").split()]
    return any(word not in given for word in words if not word.startswith("$"))


class _Counted:
    """An iterable of texts that refuses what is none, and knows how much passed."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts, self.characters = texts, 0

    def __iter__(self) -> Any:
        for text in self._texts:
            if not isinstance(text, str):
                raise DataError(f"A text is a string, not {type(text).__name__}.")
            self.characters += len(text)
            yield text
