"""Byte-pair encoding of words with a mark on the last piece: GPT-1."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from zoo.tokenizers.text.engine import library, new_spec, train_spec
from zoo.tokenizers.text.files import PublicFiles, read_lines, read_merges
from zoo.tokenizers.text.schema import WordBPEConfig
from zoo.tokenizers.text.tokenizer import TextTokenizer

__all__ = ["WORD_END", "WordBPETokenizer", "word_bpe_model"]

WORD_END = "</w>"


def word_bpe_model(
    vocab: Mapping[str, int], merges: list[list[str]], unknown: str | None
) -> dict[str, Any]:
    """Returns the model part of a tokenizer.json."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": WORD_END,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": dict(vocab),
        "merges": merges,
    }


class WordBPETokenizer(TextTokenizer):
    """BPE over words, cut as BERT cuts them (OpenAI's own rules without ftfy and spaCy)."""

    @classmethod
    def pipeline(
        cls, config: WordBPEConfig, spec: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        return {
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": None,
                "lowercase": config.lowercase is not False,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "decoder": {"type": "BPEDecoder", "suffix": WORD_END},
        }

    @classmethod
    def read_vocabulary(cls, config: WordBPEConfig, files: PublicFiles) -> dict[str, Any]:
        vocab = json.loads(files.need("vocab.json").read_text(encoding="utf-8"))
        merges = read_merges(read_lines(files.need("merges.txt")))
        model = word_bpe_model(vocab, merges, config.special.unk)
        return new_spec(model, cls.pipeline(config))

    @classmethod
    def train(cls, config: WordBPEConfig, texts: Iterable[str], vocabulary: int) -> dict[str, Any]:
        special = config.special.tokens()

        def trainer(first: list[str]) -> Any:
            return library().trainers.BpeTrainer(
                vocab_size=vocabulary,
                special_tokens=first,
                end_of_word_suffix=WORD_END,
                show_progress=False,
            )

        # a character takes two tokens: inside a word, and at its end
        room = (vocabulary - len(special)) // 4
        empty = new_spec(word_bpe_model({}, [], config.special.unk), cls.pipeline(config))
        return train_spec(empty, texts, trainer, special, room, _marked)


def _marked(word: str) -> list[str]:
    return [*word[:-1], word[-1:] + WORD_END]
