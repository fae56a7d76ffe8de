"""The two schemes without pieces: one token per byte, one token per character."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from zoo.errors import ConfigError
from zoo.tokenizers.text.decoding import Joining, byte_alphabet
from zoo.tokenizers.text.engine import added_token, new_spec
from zoo.tokenizers.text.files import PublicFiles
from zoo.tokenizers.text.schema import ByteConfig, CharacterConfig
from zoo.tokenizers.text.tokenizer import TextTokenizer

__all__ = ["ByteTokenizer", "CharacterTokenizer"]


def _model(vocab: Mapping[str, int], unknown: str | None) -> dict[str, Any]:
    """A BPE without merges leaves every unit by itself."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": dict(vocab),
        "merges": [],
    }


class ByteTokenizer(TextTokenizer):
    """Bytes of UTF-8 behind a few reserved tokens."""

    holds = ("byte-bpe",)

    @classmethod
    def read_vocabulary(cls, config: ByteConfig, files: PublicFiles) -> dict[str, Any]:
        reserved, letters = config.reserved, byte_alphabet()
        if len(set(reserved)) != len(reserved):
            raise ConfigError("reserved: a token stands twice.")
        first = len(reserved)
        sentinels = [f"<extra_id_{number}>" for number in range(config.sentinels)]
        names = [*reserved, *letters, *sentinels]
        added = [
            added_token(token, number)
            for number, token in enumerate(names)
            if not first <= number < first + 256
        ]
        step = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        }
        model = _model({token: number for number, token in enumerate(names)}, None)
        return new_spec(model, {"pre_tokenizer": step, "decoder": step}, added)

    @classmethod
    def read_joining(cls, config: ByteConfig, spec: Mapping[str, Any]) -> Joining:
        joining = super().read_joining(config, spec)
        return replace(joining, errors="ignore") if config.broken == "drop" else joining


class CharacterTokenizer(TextTokenizer):
    """Characters."""

    @classmethod
    def train(
        cls, config: CharacterConfig, texts: Iterable[str], vocabulary: int
    ) -> dict[str, Any]:
        """The most frequent characters of the texts, as many as the vocabulary has room for."""
        special = config.special.tokens()
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        order = sorted(counts, key=lambda character: (-counts[character], character))
        names = [*special, *order[: max(0, vocabulary - len(special))]]
        model = _model({token: number for number, token in enumerate(names)}, config.special.unk)
        added = [added_token(token, number) for number, token in enumerate(special)]
        return new_spec(model, {"decoder": {"type": "Fuse"}}, added)
