"""The tokens of a text.

Examples:
    zoo tokenize stdlib-bpe "import torch"
    zoo tokenize gpt2 "Hello" --json
    zoo tokenize dir:runs/7/model < text.txt

Prints an id and its spelling a line; --json adds what decoding them gives back. Without a text it
is read from stdin.
"""

from __future__ import annotations

import argparse
import sys

from zoo.cli.output import add_json, print_json, print_table
from zoo.errors import DataError

SECTION = "Use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument(
        "name", metavar="NAME", help="a tokenizer, a text model, hf:org/repo or dir:folder"
    )
    parser.add_argument("text", nargs="?", help="the text (default: stdin)")
    parser.add_argument("--pair", help="a second text, for models that read two")
    parser.add_argument(
        "--plain", action="store_true", help="without the tokens put around a text ([CLS], <s>, …)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="key=value", help="change a key (repeatable)"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Prints the tokens."""
    from zoo.api.text import tokenizer

    text = args.text if args.text is not None else _stdin()
    cutter = tokenizer(args.name, *args.set)
    ids = cutter.encode(text, args.pair, special=not args.plain)
    pieces = [cutter.id_to_token(number) for number in ids]
    if args.json:
        print_json({"ids": ids, "pieces": pieces, "text": cutter.decode(ids, skip_special=True)})
        return
    rows = [[number, repr(piece)[1:-1]] for number, piece in zip(ids, pieces)]
    caption = f"{len(ids)} tokens of {cutter.vocabulary:,}"
    print_table(["id", "piece"], rows, right=["id"], caption=caption)


def _stdin() -> str:
    if sys.stdin.isatty():
        raise DataError('Give the text: zoo tokenize NAME "text", or pipe it in.')
    return sys.stdin.read()
