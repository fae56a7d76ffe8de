"""YouTokenToMe's byte-pair encoding: each word after a mark, merged by rules that name their tokens
by number (ruDALL-E).

A model file is text: how many characters and rules there are; a line `code-point id` for each
character; a line `left right merged` for each rule, the first ones first; and the ids of <UNK>,
<PAD>, <BOS> and <EOS>, -1 for one that is not there. Two rules may spell the same piece and mean
two tokens, which a tokenizer.json cannot say; hence an engine of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from zoo.errors import DataError
from zoo.tokenizers.text.decoding import Joining
from zoo.tokenizers.text.engine import TableEngine
from zoo.tokenizers.text.layout import Layout
from zoo.tokenizers.text.schema import YouTokenToMeConfig
from zoo.tokenizers.text.sentencepiece import MARK
from zoo.tokenizers.text.tokenizer import TextTokenizer

__all__ = ["YouTokenToMeTokenizer"]

_BLANKS = re.compile(f"[ \t\n\v\f\r{MARK}]+")  # C's isspace, and the mark; no others part words
_SPECIAL = ("<UNK>", "<PAD>", "<BOS>", "<EOS>")


class YouTokenToMeTokenizer(TextTokenizer):
    """Its files' own rules, cut exactly as its C++ cuts (without BPE-dropout)."""

    def _open(self, spec: Mapping[str, Any] | None) -> None:
        config = self.config
        assert isinstance(config, YouTokenToMeConfig)
        path = self.files.need(config.model_file)
        self._text = path.read_text(encoding="utf-8")
        self.engine = _RuleEngine(self._text, str(path), config.lowercase)
        self.joining = Joining(_spell)
        self._settle(Layout())

    def write_vocabulary(self, folder: Path) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        assert isinstance(self.config, YouTokenToMeConfig)
        (folder / self.config.model_file).write_text(self._text, encoding="utf-8")
        return {}


def _spell(piece: str, first: bool) -> bytes:
    return piece.removeprefix(MARK if first else "").replace(MARK, " ").encode()


class _RuleEngine(TableEngine):
    """Characters and rules by number."""

    def __init__(self, text: str, where: str, lowercase: bool) -> None:
        self._lowercase = lowercase
        try:
            rows = [[int(word) for word in line.split()] for line in text.splitlines()]
            (characters, rules), *rows, special = [row for row in rows if row]
            self._characters = {chr(code): number for code, number in rows[:characters]}
            table = [(left, right, merged) for left, right, merged in rows[characters:]]
            if len(table) != rules or len(special) != len(_SPECIAL):
                raise ValueError
        except (ValueError, OverflowError):
            raise DataError(f"{where} is no model of YouTokenToMe's.") from None
        spelt = {number: character for character, number in self._characters.items()}
        named = {number: name for name, number in zip(_SPECIAL, special) if number >= 0}
        self._rules: dict[tuple[int, int], tuple[int, int]] = {}
        for rank, (left, right, merged) in enumerate(table):
            if left not in spelt or right not in spelt or merged in spelt:
                raise DataError(f"{where}: rule {rank + 1} merges what is not there, or to no end.")
            spelt[merged] = spelt[left] + spelt[right]
            self._rules[left, right] = rank, merged
        if spelt.keys() & named.keys() or len(self._characters) != characters:
            raise DataError(f"{where}: two tokens have one number.")
        if MARK not in self._characters:
            raise DataError(f"{where}: there is no {MARK!r} to begin words with.")
        spelt |= named
        super().__init__({piece: number for number, piece in spelt.items()}, "<UNK>")
        self._tokens = spelt  # also those that are spelt alike
        self._word = lru_cache(1 << 16)(self._merged)

    def cut(self, text: str) -> list[int]:
        text = text.lower() if self._lowercase else text
        return [n for word in _BLANKS.split(text) if word for n in self._word(word)]

    def _merged(self, word: str) -> tuple[int, ...]:
        """Returns the ids of a word: the first rule that fits anywhere is applied, leftmost first,
        until none fits. Unknown characters in a row are one token, which no rule knows."""
        unknown = -1
        ids = [self._characters.get(character, unknown) for character in MARK + word]
        ids = [n for n, before in zip(ids, [None, *ids]) if n != unknown or before != unknown]
        last = (len(self._rules), unknown)
        while len(ids) > 1:
            found = [
                (*self._rules.get(pair, last), place) for place, pair in enumerate(pairwise(ids))
            ]
            rank, merged, place = min(found, key=lambda rule: (rule[0], rule[2]))
            if rank == last[0]:
                break
            ids[place : place + 2] = [merged]
        return tuple(self.unknown if number == unknown else number for number in ids)
