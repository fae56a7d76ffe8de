"""Download what a name needs into the cache, checked by its digests.

Examples:
    zoo pull vit-base-16.augreg
    zoo pull hf:acme/my-muse@v1

Prints the folder. What is there already is not fetched again.
"""

from __future__ import annotations

import argparse
from typing import Any

from zoo.cli.output import add_json, print_json

SECTION = "Share"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("name", metavar="NAME", help="a model's name, or hf:org/repo@revision")
    parser.add_argument("--cache", metavar="FOLDER", help="instead of the usual cache")
    parser.add_argument("--offline", action="store_true", help="only what the cache holds")
    parser.add_argument("--force", action="store_true", help="fetch again what is there")
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Pulls."""
    import zoo

    options: dict[str, Any] = {"offline": args.offline, "force": args.force}
    folder = zoo.pull(args.name, cache=args.cache, **options)
    print_json({"name": args.name, "folder": str(folder)}) if args.json else print(folder)
