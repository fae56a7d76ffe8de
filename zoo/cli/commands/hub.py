"""A small real hub in a folder, for people without the public one.

Examples:
    zoo hub serve --root hub/                             on this machine only
    ZOO_HUB_TOKEN=… zoo hub serve --root hub/ --host 0.0.0.0

With HF_ENDPOINT set to the address that it prints, zoo, transformers, timm and hf push and pull
there.
"""

from __future__ import annotations

import argparse
import os

from zoo.cli.output import note

SECTION = "Share"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="serve")
    serve = actions.add_parser("serve", help="answer the Hugging Face protocol until Ctrl-C")
    serve.add_argument("--root", metavar="FOLDER", required=True, help="where repositories lie")
    serve.add_argument("--host", default="127.0.0.1", help="default: this machine only")
    serve.add_argument("--port", type=int, default=8000, help="default 8000; 0 takes a free one")
    serve.add_argument("--log", action="store_true", help="print a line per request on stderr")
    serve.epilog = "The token that clients must send is read from ZOO_HUB_TOKEN; without it, none."


def run(args: argparse.Namespace) -> None:
    """Serves."""
    from zoo.hub.server import serve

    def say(text: str) -> None:
        print(text, flush=True)  # a script that waits for the address reads a pipe

    options = {"log": note} if args.log else {}
    serve(
        args.root,
        args.host,
        args.port,
        os.environ.get("ZOO_HUB_TOKEN") or None,
        say=say,
        **options,
    )
