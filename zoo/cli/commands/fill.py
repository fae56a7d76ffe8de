"""The most probable words for a gap.

Examples:
    zoo fill bert-base-uncased "Paris is the [MASK] of France." --top 3
"""

from __future__ import annotations

import argparse

from zoo.cli.inputs import add_model, load_model
from zoo.cli.output import add_json, print_json, print_table

SECTION = "Use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    add_model(parser)
    parser.add_argument("text", metavar="TEXT", help="a text with one mask token")
    parser.add_argument("--top", type=int, default=5, help="how many (default 5)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints one line per candidate."""
    found = load_model(args, "fill").fill(args.text, top=args.top)
    if args.json:
        print_json([vars(filling) for filling in found])
    else:
        rows = [(f.token, f"{f.probability:.1%}", f.text) for f in found]
        print_table(["token", "probability", "text"], rows, right=["probability"])
    return 0
