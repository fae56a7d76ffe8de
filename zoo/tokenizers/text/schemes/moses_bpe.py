"""fairseq's WMT models (FSMT): Moses cuts words, byte-pair encoding the rest, a vocabulary per
language."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError
from zoo.tokenizers.text.decoding import Joining
from zoo.tokenizers.text.engine import LibraryEngine, TableEngine, new_spec
from zoo.tokenizers.text.files import read_lines, read_merges, write_text
from zoo.tokenizers.text.layout import Layout
from zoo.tokenizers.text.schema import MosesBPEConfig
from zoo.tokenizers.text.schemes.word_bpe import WORD_END, word_bpe_model
from zoo.tokenizers.text.tokenizer import TextTokenizer

__all__ = ["MosesBPETokenizer"]

_FILES = ("vocab-src.json", "vocab-tgt.json", "merges.txt")


class MosesBPETokenizer(TextTokenizer):
    """Source and target language of a fairseq translation model."""

    def _open(self, spec: Mapping[str, Any] | None) -> None:
        config = self.config
        assert isinstance(config, MosesBPEConfig)
        if not config.languages:
            raise ConfigError("languages: must be given, source and target, as [de, en].")
        for name in _FILES:
            self.files.need(name)
        self._vocabularies = [self.files.read_json(name) for name in _FILES[:2]]
        self._lines = read_lines(self.files.need("merges.txt"))
        merges = read_merges(self._lines)
        self._set(config, merges, 0)
        self._target = object.__new__(MosesBPETokenizer)
        self._target.__dict__.update(self.__dict__)
        self._target._set(config, merges, 1)

    def _set(self, config: MosesBPEConfig, merges: list[list[str]], side: int) -> None:
        words = _Moses(config.languages[side], config.lowercase)
        self.engine = _WordEngine(words, self._vocabularies[side], merges, config.special.unk)
        self.joining = Joining(_spell, whole=words.join)
        self._settle(Layout())

    @property
    def target(self) -> TextTokenizer:
        return self._target

    def write_vocabulary(self, folder: Path) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        for name, vocab in zip(_FILES, self._vocabularies, strict=False):
            write_text(folder / name, json.dumps(vocab, ensure_ascii=False, indent=2) + "\n")
        write_text(folder / _FILES[2], "\n".join(self._lines) + "\n")
        config = self.config
        assert isinstance(config, MosesBPEConfig)
        return {
            "tokenizer_class": "FSMTTokenizer",
            "langs": config.languages,
            "do_lower_case": config.lowercase,
        }


def _spell(piece: str, first: bool) -> bytes:
    return piece.replace(WORD_END, " ").encode()


class _Moses:
    """Moses' rules, by the package sacremoses, in the order in which XLM's and fairseq's code apply
    them."""

    def __init__(self, language: str, lowercase: bool) -> None:
        try:
            import sacremoses
        except ImportError:
            raise ConfigError(
                "This tokenizer cuts words by Moses' rules: pip install sacremoses."
            ) from None
        self._lowercase = lowercase
        self._punctuation = sacremoses.MosesPunctNormalizer(lang=language)
        self._cut = sacremoses.MosesTokenizer(lang=language)
        self._join = sacremoses.MosesDetokenizer(lang=language)

    def cut(self, text: str) -> list[str]:
        """Returns the words of a text."""
        if self._lowercase:
            text = text.lower()
        text = self._punctuation.normalize(_plain_punctuation(text))
        text = "".join(c for c in text if not unicodedata.category(c).startswith("C"))
        return self._cut.tokenize(text, aggressive_dash_splits=True, return_str=False, escape=True)

    def join(self, text: str) -> str:
        """Returns the sentence that words with blanks between them make."""
        return self._join.detokenize(text.split())


# Full-width and other punctuation to plain forms, as XLM's code ports Moses'
# replace-unicode-punctuation.perl.
_PUNCTUATION = str.maketrans(
    {
        **dict.fromkeys("，、", ","),
        **dict.fromkeys("”“《》「」", '"'),
        **dict.fromkeys("∶：", ":"),
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
        **dict(zip("？）！（；～’━〈〉【】％", "?)!(;~'-<>[]%", strict=True)),
        "…": "...",
    }
)
_FULL_STOP = re.compile(r"[。．]\s*")


def _plain_punctuation(text: str) -> str:
    return _FULL_STOP.sub(". ", text).translate(_PUNCTUATION)


class _WordEngine(TableEngine):
    """Moses' words, then BPE. Merges may lead through pieces that the vocabulary lacks; such a
    piece is unknown."""

    def __init__(
        self, words: _Moses, vocab: Mapping[str, int], merges: list[list[str]], unknown: str | None
    ) -> None:
        super().__init__(vocab, unknown)
        self._words, self._rows = words, self.size
        whole = dict(vocab)
        for first, second in merges:
            for piece in (first, second, first + second):
                whole.setdefault(piece, self.size + len(whole) - len(vocab))
        self._library = LibraryEngine(new_spec(word_bpe_model(whole, merges, unknown), {}))

    def cut(self, text: str) -> list[int]:
        words = self._words.cut(text)
        numbers = self._library.words(words) if words else []
        return [number if number < self._rows else self.unknown for number in numbers]
