"""Vectors of texts or pictures, as JSON or as a .npy file.

Examples:
    zoo embed all-minilm-l6-v2 "one text" "another text" --similarity
    zoo embed vit-digits scans/*.png --out vectors.npy
"""

from __future__ import annotations

import argparse

from zoo.cli.inputs import add_model, load_model
from zoo.cli.output import print_json, print_table
from zoo.errors import ConfigError

SECTION = "Use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    add_model(parser)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="texts, or files of pictures")
    parser.add_argument("--out", help="write the vectors to this .npy file")
    parser.add_argument("--similarity", action="store_true", help="print cosines of all pairs")


def run(args: argparse.Namespace) -> int:
    """Prints or writes one vector per input."""
    if args.out and args.similarity:
        raise ConfigError("--out and --similarity: choose one of the two.")
    vectors = load_model(args, "embed").embed(args.inputs)
    if args.out:
        import numpy

        with open(args.out, "wb") as file:  # a name alone would be given the ending .npy
            numpy.save(file, vectors.numpy())
        print(f"{args.out}: {vectors.shape[0]} vectors of {vectors.shape[1]}")
    elif args.similarity:
        unit = vectors / vectors.norm(dim=-1, keepdim=True)
        rows = [[f"{cosine:.3f}" for cosine in row] for row in (unit @ unit.T).tolist()]
        named = [[name, *row] for name, row in zip(args.inputs, rows, strict=True)]
        print_table(["", *args.inputs], named)
    else:
        print_json(
            [
                {"input": name, "vector": vector}
                for name, vector in zip(args.inputs, vectors.tolist(), strict=True)
            ]
        )
    return 0
