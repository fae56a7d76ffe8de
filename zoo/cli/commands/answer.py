"""Answer a question about pictures, or out of a text.

Examples:
    zoo answer llava-1.5-7b photo.jpg "What is on the table?"
    zoo answer llava-digits three.png seven.png "what is the sum?"
    zoo answer dir:runs/7 "def open(self, host, port=80):" "What is the third parameter?"

Pictures stand before the question, in their order; `<image>` in the question puts each elsewhere.
A text encoder with a span head (task=span) points at the answer in one text.
"""

from __future__ import annotations

import argparse
from typing import Any

from zoo.cli.decoding import add_decoding, decoding
from zoo.cli.inputs import add_model, load_model
from zoo.cli.output import add_json, print_json
from zoo.errors import ConfigError

SECTION = "Use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    add_model(parser)
    parser.add_argument(
        "files", nargs="*", metavar="IMAGE", help="pictures it is about, or one text"
    )
    parser.add_argument("question", metavar="QUESTION", help="what is asked")
    add_decoding(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Prints the answer, as it comes unless it is one of several."""
    given = decoding(args)
    model = load_model(args, "answer")
    if not hasattr(model, "stream"):
        _out_of_text(model, args, given)
        return
    whole = args.json or given.get("beams", 1) > 1 or given.get("results", 1) > 1
    if not whole:
        for piece in model.stream(args.files, args.question, **given):
            print(piece, end="", flush=True)
        print()
        return
    answer = model.answer(args.files, args.question, **given)
    if args.json:
        print_json({"pictures": args.files, "question": args.question, "answer": answer})
    else:
        print(answer if isinstance(answer, str) else "\n".join(answer))


def _out_of_text(model: Any, args: argparse.Namespace, given: dict[str, Any]) -> None:
    if given:
        raise ConfigError(f"{next(iter(given))}: an answer out of a text takes no such option.")
    if len(args.files) != 1:
        raise ConfigError(f"{args.name!r} needs one text and a question.")
    found = model.answer(args.files[0], args.question)
    print_json({"question": args.question, **vars(found)}) if args.json else print(found)
