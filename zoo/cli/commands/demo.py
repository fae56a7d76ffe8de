"""Every shipped model at work: printed, and as pictures in gallery/index.html.

Examples:
    zoo demo
    zoo demo vit-digits --out /tmp/gallery
"""

from __future__ import annotations

import argparse
from pathlib import Path

from zoo.cli.output import add_json, print_json

SECTION = "Look"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--out", default="gallery", metavar="FOLDER", help="default: gallery")
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Runs the demo."""
    from zoo.demo.gallery import run as run_demo

    def say(text: str) -> None:
        if not args.json:
            print(text, flush=True)

    done = run_demo(Path(args.out), args.names or None, say)
    if args.json:
        print_json(done)
