"""A conversation with a chat model; an empty line or Ctrl-D ends it.

Examples:
    zoo chat vicuna-7b-v1.5 --max-new-tokens 200
"""

from __future__ import annotations

import argparse
import sys

from zoo.cli.decoding import add_decoding, decoding
from zoo.cli.inputs import add_model, load_model
from zoo.errors import ConfigError

SECTION = "Use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    add_model(parser)
    parser.add_argument("--system", help="what the model is told first")
    add_decoding(parser)


def run(args: argparse.Namespace) -> int:
    """Reads lines, prints answers, remembers both."""
    given = decoding(args)
    if given.get("results", 1) > 1:
        raise ConfigError("results: a conversation goes on from one answer; leave results out.")
    model = load_model(args, "chat")
    messages = [{"role": "system", "content": args.system}] if args.system else []
    person = sys.stdin.isatty()
    while True:
        if person:
            print("> ", end="", flush=True)
        line = sys.stdin.readline().strip()
        if not line:
            return 0
        messages.append({"role": "user", "content": line})
        answer = model.chat(messages, **given)
        messages.append({"role": "assistant", "content": answer})
        print(answer, flush=True)
