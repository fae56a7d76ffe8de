"""Tokens back to text, one at a time: what is handed out is final and never half a character.

`decode` is the same walk over all tokens at once, so that the two cannot disagree.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from zoo.errors import DataError

__all__ = ["Joining", "StreamDecoder", "byte_alphabet", "read_decoder"]

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _one_each(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


# SentencePiece shows each byte that is no UTF-8 by itself, Python and Rust a broken character at a
# time.
codecs.register_error("zoo.one_each", _one_each)


@cache
def byte_alphabet() -> tuple[str, ...]:
    """Returns the printable character that byte-level vocabularies write for each byte (GPT-2's
    table)."""
    kept = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = iter(range(0x100, 0x200))
    return tuple(chr(byte) if byte in kept else chr(next(moved)) for byte in range(256))


@cache
def _byte_values() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(byte_alphabet())}


@dataclass
class Joining:
    """How spellings become text.

    `spell` gives the bytes of a token, from its spelling and whether it is the first. `errors` is
    how bytes that are no UTF-8 are shown. `hold` is a string that is kept back while it stands at
    the end (a blank that only means something when more follows). `special` gives the text of a
    special token (None: it is spelt like others). `whole` joins complete words at the end; nothing
    can then be streamed before it.
    """

    spell: Callable[[str, bool], bytes]
    errors: str = "replace"
    hold: str = ""
    strip: bool = False  # whether the text loses the blanks at both ends
    special: Callable[[str], str] | None = None
    restart: bool = False  # whether the token after a special one counts as a first one
    whole: Callable[[str], str] | None = None


class StreamDecoder:
    """Text of tokens as they come. `feed` returns what is certain by now, `end` the rest."""

    def __init__(
        self,
        joining: Joining,
        token: Callable[[int], str | None],
        special: Iterable[int],
        skip_special: bool = False,
    ) -> None:
        self._joining, self._token = joining, token
        self._special, self._skip = special, skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")(joining.errors)
        self._first, self._held, self._begun = True, "", False

    def feed(self, tokens: int | Iterable[int]) -> str:
        """Returns the text that one more token (or several) makes certain; often a word, sometimes
        nothing."""
        if isinstance(tokens, Iterable):
            return "".join(self.feed(token) for token in tokens)
        number = int(tokens)
        if self._skip and number in self._special:
            return ""
        spelling = self._token(number)
        if spelling is None:
            raise DataError(f"Token {number} is not in the vocabulary, so it has no text.")
        joining, is_special = self._joining, number in self._special
        if is_special and joining.special is not None:
            data = joining.special(spelling).encode()
        else:
            data = joining.spell(spelling, self._first)
        self._first = is_special and joining.restart
        return self._release(self._utf8.decode(data))

    def end(self) -> str:
        """Returns what was still held back, and begins anew."""
        text = self._release(self._utf8.decode(b"", final=True))
        held, self._held = self._held, ""
        self._utf8.reset()
        self._first, self._begun = True, False
        if self._joining.whole is not None:
            return self._joining.whole(text + held)
        if self._joining.strip or self._joining.hold:
            return text
        return text + held

    def _release(self, text: str) -> str:
        """Keeps back what may still change: a trailing blank that is dropped at the end, or
        everything."""
        joining = self._joining
        text = self._held + text
        self._held = ""
        if joining.whole is not None:
            self._held, text = text, ""
        elif joining.strip:
            if not self._begun:
                text = text.lstrip()
            kept = text.rstrip()
            self._held, text = text[len(kept) :], kept
            self._begun = self._begun or bool(text)
        elif joining.hold and text.endswith(joining.hold):
            self._held, text = joining.hold, text[: -len(joining.hold)]
        return text


# -- the ways of tokenizer.json --------------------------------------------------------------------


def read_decoder(content: Mapping[str, Any] | None, suffix: str = "") -> Joining:
    """Returns how a tokenizer.json's decoder joins tokens; raises DataError for a kind unknown
    here.

    `suffix` is the model's mark of word ends, which a byte-level decoder knows nothing of (CLIP).
    """
    if content is None:
        return Joining(_with_blanks)
    kind = content.get("type")
    if kind == "Sequence":
        return _sequence(content["decoders"])
    if kind == "ByteLevel" and suffix:
        return Joining(partial(_byte_words, suffix), strip=True, special=str)
    if kind == "ByteLevel":
        return Joining(_byte_level, special=str)
    if kind == "Metaspace":
        older = "always" if content.get("add_prefix_space", True) else "never"
        first = " " if content.get("prepend_scheme", older) == "never" else ""
        return Joining(partial(_marked, content["replacement"], first))
    if kind == "WordPiece":
        return Joining(partial(_word_piece, content["prefix"], content["cleanup"]))
    if kind == "BPEDecoder":
        return Joining(partial(_marked, content["suffix"], " "), hold=" ")
    if kind == "Fuse":
        return Joining(_as_is)
    raise DataError(f"tokenizer.json: the decoder {kind!r} is not one that zoo knows.")


def _with_blanks(token: str, first: bool) -> bytes:
    return (token if first else " " + token).encode()


def _as_is(token: str, first: bool) -> bytes:
    return token.encode()


def _marked(mark: str, at_first: str, token: str, first: bool) -> bytes:
    """A mark that stands for a blank; `at_first` is what it stands for in the first token."""
    return token.replace(mark, at_first if first else " ").encode()


def _byte_words(suffix: str, token: str, first: bool) -> bytes:
    return _byte_level(token.removesuffix(suffix), first) + b" " * token.endswith(suffix)


def _byte_level(token: str, first: bool) -> bytes:
    values = _byte_values()
    try:
        return bytes([values[character] for character in token])
    except KeyError:  # an added token spelt in plain characters
        return token.encode()


# Blanks that English writes together; the order matters.
_TIDY = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


def _word_piece(prefix: str, tidy: bool, token: str, first: bool) -> bytes:
    if not first:
        token = token[len(prefix) :] if token.startswith(prefix) else " " + token
    if tidy:
        for old, new in _TIDY:
            token = token.replace(old, new)
    return token.encode()


def _sequence(steps: list[Mapping[str, Any]]) -> Joining:
    """SentencePiece's way written out: ▁ to blanks, byte tokens to bytes, one blank off the
    front."""
    if len(steps) == 1:
        return read_decoder(steps[0])
    replaced: list[tuple[str, str]] = []
    fallback, cut = False, ""
    for step in steps:
        kind = step["type"]
        if kind == "Replace" and "String" in step["pattern"]:
            replaced.append((step["pattern"]["String"], step["content"]))
        elif kind == "ByteFallback":
            fallback = True
        elif kind == "Strip" and step["start"] <= 1 and step["stop"] == 0:
            cut = step["content"] if step["start"] else ""
        elif kind != "Fuse":
            raise DataError(f"tokenizer.json: a decoder with {kind!r} is not one that zoo knows.")

    spell = partial(_piece, tuple(replaced), fallback, cut)
    return Joining(spell, errors="zoo.one_each" if fallback else "replace")


def _piece(
    replaced: tuple[tuple[str, str], ...], fallback: bool, cut: str, token: str, first: bool
) -> bytes:
    match = _BYTE.fullmatch(token) if fallback else None
    if match is not None:
        return bytes([int(match.group(1), 16)])
    for old, new in replaced:
        token = token.replace(old, new)
    return (token.removeprefix(cut) if first and cut else token).encode()
