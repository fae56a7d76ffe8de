"""Unigram language model over pieces with ▁ for blanks: T5, XLM-R, XLNet, ALBERT, mBART, …"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zoo.errors import ConfigError
from zoo.tokenizers.text.engine import added_token, library, new_spec, train_spec
from zoo.tokenizers.text.files import PublicFiles
from zoo.tokenizers.text.schema import UnigramConfig
from zoo.tokenizers.text.sentencepiece import (
    CONTROL,
    MARK,
    USER,
    SentencePieceModel,
    read_model,
)
from zoo.tokenizers.text.tokenizer import TextTokenizer

__all__ = ["UnigramTokenizer"]

MODEL_FILES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "sentencepiece.model")
_NUMBER_COMMA_PENALTY = 100.0


class UnigramTokenizer(TextTokenizer):
    """Unigram."""

    @classmethod
    def pipeline(
        cls, config: UnigramConfig, spec: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        model = SentencePieceModel()
        charsmap = _charsmap((spec or {}).get("normalizer"))
        return cls._pipeline(config, model, charsmap)

    @classmethod
    def _pipeline(
        cls, config: UnigramConfig, model: SentencePieceModel, charsmap: str | None
    ) -> dict[str, Any]:
        steps: list[dict[str, Any]] = []
        if config.straight_quotes:
            steps += [_replace("``", '"'), _replace("''", '"')]
        if config.strip_accents:
            steps += [{"type": "NFKD"}, {"type": "StripAccents"}]
        if config.lowercase:
            steps.append({"type": "Lowercase"})
        if charsmap:
            steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
        if config.spaces == "split":
            mark = {
                "type": "Metaspace",
                "replacement": MARK,
                "prepend_scheme": "always",
                "split": True,
            }
            cut = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, mark]}
            normalizer = {"type": "Sequence", "normalizers": steps} if steps else None
            return {"normalizer": normalizer, "pre_tokenizer": cut, "decoder": mark}
        return {
            "normalizer": {"type": "Sequence", "normalizers": steps + space_steps(model)},
            "pre_tokenizer": None,
            "decoder": piece_decoder(model.dummy_prefix),
        }

    @classmethod
    def read_vocabulary(cls, config: UnigramConfig, files: PublicFiles) -> dict[str, Any]:
        path = files.need(*MODEL_FILES)
        model = read_model(path)
        if model.algorithm != "unigram":
            raise ConfigError(f"{path} holds a {model.algorithm} model, not a unigram one.")
        vocab: list[list[Any]] = [[piece.text, piece.score] for piece in model.pieces]
        if config.split_number_commas:
            vocab = [[text, score - _penalty(text)] for text, score in vocab]
        unknown = model.unk_id
        if config.fairseq_ids:
            special = config.special
            first = [[token, 0.0] for token in (special.bos, special.pad, special.eos, special.unk)]
            vocab, unknown = [*first, *vocab[3:], [special.mask, 0.0]], 3
        sentinels = [f"<extra_id_{number}>" for number in reversed(range(config.sentinels))]
        vocab += [[token, 0.0] for token in sentinels]
        spec = {
            "type": "Unigram",
            "unk_id": unknown,
            "vocab": vocab,
            "byte_fallback": model.byte_fallback,
        }
        charsmap = model.charsmap_text() if model.charsmap else None
        number = {text: place for place, (text, _) in enumerate(vocab)}
        added = declared_tokens(model) + [added_token(token) for token in sentinels]
        numbered = [{"id": number[token["content"]], **token} for token in added]
        return new_spec(
            spec,
            cls._pipeline(config, model, charsmap),
            sorted(numbered, key=lambda token: token["id"]),
        )

    @classmethod
    def train(cls, config: UnigramConfig, texts: Iterable[str], vocabulary: int) -> dict[str, Any]:
        if config.special.unk is None:
            raise ConfigError("special.unk: a unigram vocabulary needs a token for the unknown.")
        special = config.special.tokens()

        def trainer(first: list[str]) -> Any:
            return library().trainers.UnigramTrainer(
                vocab_size=vocabulary,
                special_tokens=first,
                unk_token=config.special.unk,
                show_progress=False,
            )

        model: dict[str, Any] = {
            "type": "Unigram",
            "unk_id": None,
            "vocab": [],
            "byte_fallback": False,
        }
        room = (vocabulary - len(special)) // 2
        return train_spec(new_spec(model, cls.pipeline(config)), texts, trainer, special, room)


def _replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def space_steps(model: SentencePieceModel) -> list[dict[str, Any]]:
    """Returns what a SentencePiece model does to blanks, as normalizers."""
    steps: list[dict[str, Any]] = []
    if model.remove_extra_spaces:
        for pattern, content in (("^ +| +$", ""), (" {2,}", " ")):
            steps.append({"type": "Replace", "pattern": {"Regex": pattern}, "content": content})
    steps.append(_replace(" ", MARK))
    if model.dummy_prefix:
        steps.append({"type": "Prepend", "prepend": MARK})
    return steps


def piece_decoder(prefix: bool) -> dict[str, Any]:
    """Returns the decoder of pieces with ▁ and byte pieces; with a prefix, one blank comes off the
    front."""
    steps: list[dict[str, Any]] = [
        _replace(MARK, " "),
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def declared_tokens(model: SentencePieceModel) -> list[dict[str, Any]]:
    """Returns the tokens that a model file declares to be whole: control symbols, and symbols of
    its users."""
    return [
        {**added_token(piece.text, special=piece.type == CONTROL), "normalized": False}
        for piece in model.pieces
        if piece.type in (CONTROL, USER)
    ]


def _penalty(text: str) -> float:
    return (
        _NUMBER_COMMA_PENALTY if len(text) > 1 and text[-1] == "," and text[-2].isdigit() else 0.0
    )


def _charsmap(normalizer: Mapping[str, Any] | None) -> str | None:
    """Returns the compiled rules that a tokenizer.json's normalizer holds."""
    if normalizer is None:
        return None
    for step in normalizer.get("normalizers") or [normalizer]:
        if step.get("type") == "Precompiled":
            return step["precompiled_charsmap"]
    return None
