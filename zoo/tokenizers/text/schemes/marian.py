"""Marian: one SentencePiece model per language over a vocabulary of its own (OPUS-MT)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import DataError
from zoo.tokenizers.text.decoding import Joining
from zoo.tokenizers.text.engine import TableEngine
from zoo.tokenizers.text.files import PublicFiles, write_text
from zoo.tokenizers.text.layout import Layout
from zoo.tokenizers.text.sentencepiece import MARK, SentencePieceModel, read_model
from zoo.tokenizers.text.spm_exact import ExactUnigram
from zoo.tokenizers.text.tokenizer import TextTokenizer

__all__ = ["MarianTokenizer"]

_LANGUAGE = re.compile(r">>.*?<<", re.DOTALL)


class MarianTokenizer(TextTokenizer):
    """Source and target language of an OPUS-MT model. A text may begin with a code for its target:
    `>>fra<< …`."""

    def _open(self, spec: Mapping[str, Any] | None) -> None:
        vocab = _read_vocabulary(self.files, "vocab.json")
        target_vocab = vocab
        if self.files.path("target_vocab.json"):
            target_vocab = _read_vocabulary(self.files, "target_vocab.json")
        self._kept = {
            name: self.files.need(name).read_bytes() for name in ("source.spm", "target.spm")
        }
        self._vocabularies = {"vocab.json": vocab, "target_vocab.json": target_vocab}
        unknown = self.config.special.unk or "<unk>"
        source, target = (read_model(self.files.need(name)) for name in self._kept)
        self._set(_PieceEngine(source, vocab, unknown))
        self._target = object.__new__(MarianTokenizer)
        self._target.__dict__.update(self.__dict__)
        self._target._set(_PieceEngine(target, target_vocab, unknown))

    def _set(self, engine: _PieceEngine) -> None:
        self.engine = engine
        self.joining = Joining(_spell, strip=True, special=_spell_special, restart=True)
        self._settle(Layout())

    @property
    def target(self) -> TextTokenizer:
        return self._target

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding: source and target together, as they usually share one."""
        return max(self.engine.size, self._target.engine.size)

    def write_vocabulary(self, folder: Path) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self._kept.items():
            (folder / name).write_bytes(data)
        shared = self._vocabularies["vocab.json"] is self._vocabularies["target_vocab.json"]
        for name, vocab in list(self._vocabularies.items())[: 1 if shared else 2]:
            write_text(folder / name, json.dumps(vocab, ensure_ascii=False, indent=2) + "\n")
        return {"tokenizer_class": "MarianTokenizer", "separate_vocabs": not shared}


def _spell(piece: str, first: bool) -> bytes:
    return piece.removeprefix(MARK if first else "").replace(MARK, " ").encode()


def _spell_special(token: str) -> str:
    return token + " "


def _read_vocabulary(files: PublicFiles, name: str) -> dict[str, int]:
    files.need(name)
    vocab = files.read_json(name)
    if not isinstance(vocab, dict) or not all(isinstance(n, int) for n in vocab.values()):
        raise DataError(f"{files.folder}/{name} is no vocabulary of tokens and ids.")
    return vocab


class _PieceEngine(TableEngine):
    """Pieces of a SentencePiece model, numbered by a vocabulary beside it."""

    def __init__(self, model: SentencePieceModel, vocab: Mapping[str, int], unknown: str) -> None:
        super().__init__(vocab, unknown)
        self._pieces = ExactUnigram(model)

    def cut(self, text: str) -> list[int]:
        found: list[int] = []
        code = _LANGUAGE.match(text)
        if code is not None:
            found.append(self._numbers.get(code.group(), self.unknown))
            text = text[code.end() :]
        pieces = self._pieces.pieces(text)
        return found + [self._numbers.get(piece, self.unknown) for _, piece in pieces]
