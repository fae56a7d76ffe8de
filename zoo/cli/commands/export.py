"""A model in a public layout, which the library it comes from opens.

Examples:
    zoo export dir:runs/7 out/                           what vLLM, llama.cpp and CTranslate2 read
    zoo export dir:runs/7 out/ --format transformers-vit
    zoo export gpt2 out/ --format zoo                    our own
    zoo export --formats
"""

from __future__ import annotations

import argparse

from zoo.cli.front import UsageError
from zoo.cli.output import add_json, print_json, print_table

SECTION = "Share"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a model with weights")
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="where to write it")
    parser.add_argument(
        "--format", default="public", help="the layout (default: the public one that fits)"
    )
    parser.add_argument("--dtype", help="fp32, bf16 or fp16 (default: as stored)")
    parser.add_argument("--formats", action="store_true", help="list the layouts instead")
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Writes the folder."""
    if args.formats:
        from zoo.weights.formats import formats

        rows = [{"format": name, "kind": form.kind} for name, form in formats().items()]
        if args.json:
            print_json(rows)
        else:
            print_table(["format", "of models"], [[*row.values()] for row in rows])
        return
    if args.name is None or args.folder is None:
        raise UsageError("zoo export takes a NAME and a FOLDER; see zoo export --help.")
    import zoo
    from zoo.models.base import as_dtype

    model = zoo.load(args.name).to(as_dtype(args.dtype))
    folder = zoo.save(model, args.folder, format=args.format)
    print_json({"folder": str(folder), "format": args.format}) if args.json else print(folder)
