"""The cutting of text itself: a pipeline of the `tokenizers` library behind four small
questions."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from zoo.errors import ConfigError, DataError, ZooError

__all__ = [
    "Engine",
    "LibraryEngine",
    "TableEngine",
    "added_token",
    "library",
    "new_spec",
    "train_spec",
]


def library() -> Any:
    """Returns the module `tokenizers`; raises ConfigError naming the pip line when it is
    missing."""
    try:
        import tokenizers
    except ImportError:
        raise ConfigError(
            "Text tokenizers need the package 'tokenizers': pip install multimodal-zoo[text]."
        ) from None
    return tokenizers


def added_token(
    content: str, number: int | None = None, *, special: bool = True, lstrip: bool = False
) -> dict[str, Any]:
    """Returns an added token as tokenizer.json writes it."""
    token = {
        "content": content,
        "single_word": False,
        "lstrip": lstrip,
        "rstrip": False,
        "normalized": not special,
        "special": special,
    }
    return token if number is None else {"id": number, **token}


def new_spec(
    model: Mapping[str, Any],
    pipeline: Mapping[str, Any],
    added: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Returns the content of a tokenizer.json: a model with its vocabulary and the pipeline around
    it."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added),
        "normalizer": pipeline.get("normalizer"),
        "pre_tokenizer": pipeline.get("pre_tokenizer"),
        "post_processor": None,
        "decoder": pipeline.get("decoder"),
        "model": dict(model),
    }


class Engine:
    """What cuts text. `special` holds the ids that are skipped on request; tokens are the
    vocabulary's spellings."""

    special: set[int]
    size: int  # one more than the highest id

    def ids(self, texts: Sequence[str], control: bool = True) -> list[list[int]]:
        """Returns the ids of each text; without `control`, special tokens written in a text are cut
        like any text."""
        raise NotImplementedError

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Returns (ids, places): where in the text each token comes from, in characters."""
        raise DataError("This tokenizer cannot say where in the text its tokens come from.")

    def token(self, number: int) -> str | None:
        """Returns the spelling of an id, None for an id without one."""
        raise NotImplementedError

    def number(self, token: str) -> int | None:
        """Returns the id of a spelling, None when there is none."""
        raise NotImplementedError

    def add(self, tokens: Sequence[Mapping[str, Any]]) -> None:
        """Makes tokens whole (most of them special), giving ids at the end to those that the
        vocabulary lacks."""
        raise NotImplementedError

    def to_spec(self) -> dict[str, Any] | None:
        """Returns the content of a tokenizer.json, None when one cannot say it all."""
        return None


class LibraryEngine(Engine):
    """An engine from the content of a tokenizer.json."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        tokenizers = library()
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(spec))
        except Exception as error:  # the library raises plain Exception
            raise DataError(f"The tokenizers library refuses these files: {error}.") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._literal: Any = None
        self._refresh()

    def _refresh(self) -> None:
        added = self._tokenizer.get_added_tokens_decoder()
        self.special = {number for number, token in added.items() if token.special}
        self.size = max(self._tokenizer.get_vocab(True).values(), default=-1) + 1
        self._literal = None

    def ids(self, texts: Sequence[str], control: bool = True) -> list[list[int]]:
        tokenizer = self._tokenizer if control else self._without_control()
        found = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def _without_control(self) -> Any:
        if self._literal is None:  # a copy, because the library keeps this choice inside
            self._literal = library().Tokenizer.from_str(self._tokenizer.to_str())
            self._literal.encode_special_tokens = True
        return self._literal

    def words(self, words: Sequence[str]) -> list[int]:
        """Returns the ids of a text that is cut into words already."""
        return self._tokenizer.encode(
            list(words), is_pretokenized=True, add_special_tokens=False
        ).ids

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        found = self._tokenizer.encode(text, add_special_tokens=False)
        return found.ids, found.offsets

    def token(self, number: int) -> str | None:
        return self._tokenizer.id_to_token(number) if 0 <= number < self.size else None

    def number(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    def add(self, tokens: Sequence[Mapping[str, Any]]) -> None:
        made = library().AddedToken
        for token in tokens:  # one by one, because their order decides their ids
            add = (
                self._tokenizer.add_special_tokens
                if token["special"]
                else self._tokenizer.add_tokens
            )
            add([made(**token)])
        self._refresh()

    def to_spec(self) -> dict[str, Any]:
        return json.loads(self._tokenizer.to_str())


class TableEngine(Engine):
    """An engine over a vocabulary written as a table, for schemes that the library cannot
    express."""

    def __init__(self, vocab: Mapping[str, int], unknown: str | None) -> None:
        if unknown is None or unknown not in vocab:
            raise DataError(f"The vocabulary lacks the token {unknown!r} for the unknown.")
        self._numbers = dict(vocab)
        self._tokens = {number: token for token, number in vocab.items()}
        self.unknown = vocab[unknown]
        self.size = max(self._tokens) + 1
        self.special = set()
        self._whole: set[str] = set()
        self._split = re.compile("(?!)")

    def cut(self, text: str) -> list[int]:
        """Returns the ids of a text without special tokens."""
        raise NotImplementedError

    def ids(self, texts: Sequence[str], control: bool = True) -> list[list[int]]:
        return [self._one(text, control) for text in texts]

    def _one(self, text: str, control: bool) -> list[int]:
        found: list[int] = []
        # Special tokens are taken out first; each text between them is a sentence of its own.
        for index, part in enumerate(self._split.split(text) if control else [text]):
            found += [self._numbers[part]] if index % 2 else self.cut(part)
        return found

    def token(self, number: int) -> str | None:
        return self._tokens.get(number)

    def number(self, token: str) -> int | None:
        return self._numbers.get(token)

    def add(self, tokens: Sequence[Mapping[str, Any]]) -> None:
        for token in tokens:
            content = token["content"]
            if content not in self._numbers:
                self._numbers[content], self._tokens[self.size] = self.size, content
                self.size += 1
            self._whole.add(content)
            if token["special"]:
                self.special.add(self._numbers[content])
        if not self._whole:
            return
        names = sorted(self._whole, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, names)) + ")")


def train_spec(
    spec: Mapping[str, Any],
    texts: Iterable[str],
    trainer: Callable[[list[str]], Any],
    special: Sequence[str],
    characters: int | None = None,
    mark: Callable[[str], Iterable[str]] | None = None,
) -> dict[str, Any]:
    """Returns the spec with the vocabulary that one of the library's trainers finds in the texts.

    Args:
        trainer: makes the trainer from the tokens that come first in the vocabulary.
        special: special tokens.
        characters: how many different ones the vocabulary may hold; rarer ones are dropped from
            the texts first.
        mark: the single-character pieces of a word, where they are spelt otherwise than the
            characters (`##b`, `b</w>`); they get their ids before training. The library would do
            both by itself, but in an order that changes from run to run.
    Raises: ConfigError.
    """
    tokenizer = library().Tokenizer.from_str(json.dumps(spec))
    first = list(special)
    if characters is not None:
        texts = _common(texts, tokenizer.normalizer, characters)
    if mark is not None:
        pieces = {piece for word in _words(texts, tokenizer) for piece in mark(word)}
        first += sorted(pieces.difference(special))
    try:
        tokenizer.train_from_iterator(texts, trainer=trainer(first))
    except ZooError:  # from the texts themselves
        raise
    except Exception as error:  # the library raises plain Exception
        raise ConfigError(f"These texts train no tokenizer: {error}.") from None
    trained = json.loads(tokenizer.to_str())
    added = [token for token in trained["added_tokens"] if token["content"] in special]
    return {**trained, "added_tokens": added}


def _words(texts: Iterable[str], tokenizer: Any) -> set[str]:
    """Returns every word that the pipeline cuts out of the texts."""
    normalize, cut = tokenizer.normalizer.normalize_str, tokenizer.pre_tokenizer.pre_tokenize_str
    return {word for text in texts for word, _ in cut(normalize(text))}


def _common(texts: Iterable[str], normalizer: Any, characters: int) -> list[str]:
    """Returns the texts without all but their most frequent characters."""
    if characters < 1:
        raise ConfigError("vocabulary: leaves no room beside the special tokens.")
    kept = list(texts)
    counts: Counter[str] = Counter()
    for text in kept:
        counts.update(text if normalizer is None else normalizer.normalize_str(text))
    if len(counts) <= characters:
        return kept
    order = sorted(counts, key=lambda character: (-counts[character], character))
    dropped = str.maketrans(dict.fromkeys(order[characters:], ""))
    if normalizer is not None:
        kept = [normalizer.normalize_str(text) for text in kept]
    return [text.translate(dropped) for text in kept]
