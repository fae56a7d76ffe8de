"""When each word of a known text was said in a file of sound.

Examples:
    zoo align talk.wav "one two three"
    zoo align talk.wav words.txt --model parakeet-ctc-0.6b --json

TEXT is the text itself, or the name of a file that holds it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from zoo.cli.inputs import load_model
from zoo.cli.output import add_json, print_json, print_table

SECTION = "Use"
MODEL = "conformer-ctc-digits"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("audio", metavar="FILE", help="a file of sound")
    parser.add_argument("text", metavar="TEXT", help="what is said in it, or a file that says it")
    parser.add_argument(
        "--model", dest="name", default=MODEL, metavar="NAME", help=f"(default {MODEL})"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="key=value", help="change a key (repeatable)"
    )
    parser.add_argument("--device", help="cpu, cuda, …; the first accelerator unless given")
    parser.add_argument("--dtype", help="fp32, bf16 or fp16 (default: fp32)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints one line per word: start, stop, word, probability."""
    model = load_model(args, "align")
    words = model.align(args.audio, _text(args.text))
    if args.json:
        print_json([vars(word) for word in words])
        return 0
    rows = [[f"{w.start:.2f}", f"{w.stop:.2f}", w.text, f"{w.probability:.2f}"] for w in words]
    print_table(["start", "stop", "word", "probability"], rows)
    return 0


def _text(given: str) -> str:
    try:
        return Path(given).read_text(encoding="utf-8") if Path(given).is_file() else given
    except OSError:  # a text too long for a file's name
        return given
