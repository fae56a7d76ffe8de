"""Make a tokenizer of text.

Examples:
    zoo tokenizer train byte-bpe my-bpe --data stdlib --vocabulary 4096
    zoo tokenizer train wordpiece my-wordpiece --data notes/ book.txt --set lowercase=false
    zoo tokenize dir:my-bpe "import torch"

`train` takes a scheme (byte-bpe, wordpiece, unigram, sentencepiece-bpe, word-bpe, character) or a
tokenizer whose scheme and special tokens are taken over, and writes tokenizer.json and
tokenizer_config.json, which transformers' AutoTokenizer opens too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.cli.inputs import expand
from zoo.cli.output import add_json, print_json, status
from zoo.errors import ConfigError, DataError

SECTION = "Train"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser("train", help="learn a vocabulary from text")
    train.add_argument("kind", metavar="KIND", help="a scheme, or the name of a tokenizer")
    train.add_argument("folder", metavar="FOLDER", help="where to write it")
    train.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="FILE",
        help="text files and folders; stdlib, numbers",
    )
    train.add_argument("--vocabulary", type=int, default=4096, help="tokens at most (default 4096)")
    train.add_argument(
        "--special",
        action="append",
        default=[],
        metavar="role=token",
        help="a special token: bos, eos, unk, sep, pad, cls, mask or extra (repeatable)",
    )
    train.add_argument(
        "--set", action="append", default=[], metavar="key=value", help="change a key (repeatable)"
    )
    add_json(train)


def run(args: argparse.Namespace) -> None:
    """Trains a tokenizer and says what it is."""
    from zoo.registry.overrides import apply_overrides
    from zoo.tokenizers.text import train_tokenizer

    special = _special(args.special)
    settings = apply_overrides({}, args.set)
    with status(f"training a {args.kind} tokenizer"):
        made = train_tokenizer(
            args.kind, _texts(args.data), args.vocabulary, special=special, **settings
        )
        folder = made.save(args.folder)
    if args.json:
        print_json({"folder": str(folder), "kind": made.config.zoo_kind, "vocabulary": len(made)})
    else:
        print(f"{folder}: {made.config.zoo_kind}, {len(made):,} tokens")


def _special(words: list[str]) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for word in words:
        role, equals, token = word.partition("=")
        if not equals or not token:
            raise ConfigError(f"--special {word!r} is not of the form role=token.")
        if role == "extra":
            found.setdefault("extra", []).append(token)
        else:
            found[role] = token
    return found or None


def _texts(paths: list[str]) -> Iterator[str]:
    """Yields the texts of files one by one; `stdlib` is the training part of the standard library,
    `numbers` that of the numbers, in the words of every language."""
    for path in paths:
        if path in ("stdlib", "numbers") and not Path(path).exists():
            yield from _embedded(path)
            continue
        for file in expand([path]):
            try:
                yield Path(file).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                raise DataError(f"{file} is no text in UTF-8.") from None


def _embedded(name: str) -> Iterator[str]:
    if name == "stdlib":
        from zoo.data.text.stdlib import stdlib_texts

        yield from stdlib_texts("train")
        return
    from zoo.data.text.numbers import in_words, numbers_of
    from zoo.data.text.schema import LANGUAGES

    for language in LANGUAGES:
        for number in numbers_of("train"):
            yield in_words(number, language)
