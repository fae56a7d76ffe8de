"""A model with new weights, written to a folder.

Examples:
    zoo create vit-tiny-16 out/ backbone.position=rope classes=10 --seed 1
"""

from __future__ import annotations

import argparse

SECTION = "Use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("name", metavar="NAME", help="a model")
    parser.add_argument("folder", metavar="FOLDER", help="where to write it")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys to change first")
    parser.add_argument("--seed", type=int, default=0, help="of the new weights (default 0)")
    parser.add_argument("--dtype", help="fp32 (default), bf16 or fp16")


def run(args: argparse.Namespace) -> None:
    """Creates and saves."""
    import zoo

    model = zoo.create(args.name, *args.overrides, seed=args.seed, dtype=args.dtype)
    print(f"{zoo.save(model, args.folder)}")
