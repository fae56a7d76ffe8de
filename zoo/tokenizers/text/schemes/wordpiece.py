"""WordPiece: BERT and its many relatives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zoo.tokenizers.text.engine import library, new_spec, train_spec
from zoo.tokenizers.text.files import PublicFiles, read_lines
from zoo.tokenizers.text.schema import WordPieceConfig
from zoo.tokenizers.text.tokenizer import TextTokenizer

__all__ = ["WordPieceTokenizer"]


class WordPieceTokenizer(TextTokenizer):
    """WordPiece."""

    @classmethod
    def pipeline(
        cls, config: WordPieceConfig, spec: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        said = (spec or {}).get("normalizer") or {}  # what a setting that is null leaves as it was
        settings = {"handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
        if said.get("type") == "BertNormalizer":
            settings = {key: said[key] for key in settings}
        given = {
            "handle_chinese_chars": config.split_chinese,
            "strip_accents": config.strip_accents,
            "lowercase": config.lowercase,
        }
        settings.update({key: value for key, value in given.items() if value is not None})
        return {
            "normalizer": {"type": "BertNormalizer", "clean_text": True, **settings},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        }

    @classmethod
    def read_vocabulary(cls, config: WordPieceConfig, files: PublicFiles) -> dict[str, Any]:
        lines = read_lines(files.need("vocab.txt"))
        return cls._spec(config, {line.rstrip("\r"): number for number, line in enumerate(lines)})

    @classmethod
    def _spec(cls, config: WordPieceConfig, vocab: dict[str, int]) -> dict[str, Any]:
        model = {
            "type": "WordPiece",
            "unk_token": config.special.unk or "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        }
        return new_spec(model, cls.pipeline(config))

    @classmethod
    def train(
        cls, config: WordPieceConfig, texts: Iterable[str], vocabulary: int
    ) -> dict[str, Any]:
        special = config.special.tokens()

        def trainer(first: list[str]) -> Any:
            return library().trainers.WordPieceTrainer(
                vocab_size=vocabulary, special_tokens=first, show_progress=False
            )

        # a character takes two tokens: at the beginning of a word, and inside
        room = (vocabulary - len(special)) // 4
        return train_spec(cls._spec(config, {}), texts, trainer, special, room, _marked)


def _marked(word: str) -> list[str]:
    return [word[:1], *(f"##{character}" for character in word[1:])]
