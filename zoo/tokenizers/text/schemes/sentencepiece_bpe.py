"""SentencePiece's byte-pair encoding with bytes for what is unknown: Llama 1 and 2, Vicuna,
Mistral, TinyLlama."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zoo.errors import ConfigError
from zoo.tokenizers.text.engine import library, new_spec, train_spec
from zoo.tokenizers.text.files import PublicFiles
from zoo.tokenizers.text.schema import SentencePieceBPEConfig
from zoo.tokenizers.text.schemes.unigram import (
    MODEL_FILES,
    declared_tokens,
    piece_decoder,
    space_steps,
)
from zoo.tokenizers.text.sentencepiece import MARK, SentencePieceModel, merges_of, read_model
from zoo.tokenizers.text.tokenizer import TextTokenizer

__all__ = ["SentencePieceBPETokenizer"]


class SentencePieceBPETokenizer(TextTokenizer):
    """SentencePiece BPE."""

    @classmethod
    def pipeline(
        cls, config: SentencePieceBPEConfig, spec: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        return cls._pipeline(config, SentencePieceModel(remove_extra_spaces=False))

    @classmethod
    def _pipeline(cls, config: SentencePieceBPEConfig, model: SentencePieceModel) -> dict[str, Any]:
        prefix = model.dummy_prefix if config.prefix_space is None else config.prefix_space
        if config.legacy is False:  # only once, and not where a blank stands already
            cut = {
                "type": "Metaspace",
                "replacement": MARK,
                "prepend_scheme": "first" if prefix else "never",
                "split": False,
            }
            return {"normalizer": None, "pre_tokenizer": cut, "decoder": piece_decoder(prefix)}
        steps: list[dict[str, Any]] = []
        if model.charsmap:
            text = model.charsmap_text()
            steps.append({"type": "Precompiled", "precompiled_charsmap": text})
        model.dummy_prefix = prefix
        return {
            "normalizer": {"type": "Sequence", "normalizers": steps + space_steps(model)},
            "pre_tokenizer": None,
            "decoder": piece_decoder(prefix),
        }

    @classmethod
    def read_vocabulary(cls, config: SentencePieceBPEConfig, files: PublicFiles) -> dict[str, Any]:
        path = files.need(*MODEL_FILES)
        model = read_model(path)
        if model.algorithm != "bpe":
            raise ConfigError(f"{path} holds a {model.algorithm} model, not a bpe one.")
        vocab = {piece.text: number for number, piece in enumerate(model.pieces)}
        spec = {
            "type": "BPE",
            "dropout": None,
            "unk_token": model.pieces[model.unk_id].text,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": model.byte_fallback,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges_of(model),
        }
        added = [{"id": vocab[token["content"]], **token} for token in declared_tokens(model)]
        return new_spec(spec, cls._pipeline(config, model), added)

    @classmethod
    def train(
        cls, config: SentencePieceBPEConfig, texts: Iterable[str], vocabulary: int
    ) -> dict[str, Any]:
        """The vocabulary holds the special tokens, the 256 bytes, characters and merges, in this
        order."""
        special = config.special.tokens()
        reserved = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
        if vocabulary < len(reserved) + 64:
            raise ConfigError(
                f"vocabulary: {vocabulary} leaves no room beside the 256 bytes and {len(special)} "
                "special tokens."
            )
        model: dict[str, Any] = {
            "type": "BPE",
            "dropout": None,
            "unk_token": config.special.unk,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {},
            "merges": [],
        }
        # Words are cut for training only; afterwards a merge may not cross a blank anyway.
        split = {
            "type": "Metaspace",
            "replacement": MARK,
            "prepend_scheme": "always",
            "split": True,
        }

        def trainer(first: list[str]) -> Any:
            return library().trainers.BpeTrainer(
                vocab_size=vocabulary, special_tokens=first, show_progress=False
            )

        room = (vocabulary - len(reserved)) // 2
        empty = new_spec(model, {"pre_tokenizer": split})
        trained = train_spec(empty, texts, trainer, reserved, room)
        kept = [token for token in trained["added_tokens"] if token["content"] in special]
        return new_spec(trained["model"], cls.pipeline(config), kept)
