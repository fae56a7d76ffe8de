"""Answer a question about pictures.

Examples:
    zoo answer llava-1.5-7b photo.jpg "What is on the table?"
    zoo answer llava-digits three.png seven.png "what is the sum?"

Pictures stand before the question, in their order; `<image>` in the question puts each elsewhere.
"""

from __future__ import annotations

import argparse

from zoo.cli.decoding import add_decoding, decoding
from zoo.cli.inputs import add_model, load_model
from zoo.cli.output import add_json, print_json

SECTION = "Use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    add_model(parser)
    parser.add_argument("files", nargs="*", metavar="IMAGE", help="pictures it is about")
    parser.add_argument("question", metavar="QUESTION", help="what is asked")
    add_decoding(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Prints the answer, as it comes unless it is one of several."""
    given = decoding(args)
    model = load_model(args, "answer")
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
