"""Options of drawing on a command line, declared once: by their schema."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from zoo.models.generator.schema import DrawOptions

__all__ = ["add_drawing", "drawing"]


def add_drawing(parser: argparse.ArgumentParser) -> None:
    """Gives a command `--seed`, `--guidance`, `--steps`, … of DrawOptions."""
    group = parser.add_argument_group("drawing")
    for field in dataclasses.fields(DrawOptions):
        flag, doc = "--" + field.name.replace("_", "-"), field.metadata["doc"]
        said = str(field.type)
        if "bool" in said:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=doc)
        else:
            kind = int if "int" in said else float if "float" in said else str
            group.add_argument(flag, type=kind, help=doc)


def drawing(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what was given, for a verb."""
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(DrawOptions)}
    return {name: value for name, value in given.items() if value is not None}
