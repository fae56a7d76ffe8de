"""Texts in another language, line by line.

Examples:
    zoo translate opus-mt-en-de "A good day." --beams 4
    zoo translate opus-mt-en-de - < letter.txt
"""

from __future__ import annotations

import argparse
import sys

from zoo.cli.decoding import add_decoding, decoding
from zoo.cli.inputs import add_model, load_model
from zoo.cli.output import add_json, print_json

SECTION = "Use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    add_model(parser)
    parser.add_argument(
        "texts", nargs="+", metavar="TEXT", help="what to translate; - reads lines of stdin"
    )
    add_decoding(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints one line (with --results n, n lines) per text."""
    given = decoding(args)
    model = load_model(args, "translate")
    texts = sys.stdin.read().splitlines() if args.texts == ["-"] else args.texts
    answers = model.translate(texts, **given)
    if args.json:
        print_json([{"source": s, "target": t} for s, t in zip(texts, answers, strict=True)])
        return 0
    for answer in answers:
        print("\n".join(answer) if isinstance(answer, list) else answer)
    return 0
