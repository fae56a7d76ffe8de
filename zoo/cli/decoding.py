"""Decoding options on a command line, declared once: by their schema."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from zoo.generation.schema import DecodingOptions

__all__ = ["add_decoding", "decoding"]

SKIPPED = ("end",)  # ids, of no use to a person


def _fields() -> list[dataclasses.Field]:
    return [f for f in dataclasses.fields(DecodingOptions) if f.name not in SKIPPED]


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Gives a command `--max-new-tokens`, `--temperature`, … of DecodingOptions."""
    group = parser.add_argument_group("decoding")
    for field in _fields():
        flag = "--" + field.name.replace("_", "-")
        shown = field.metadata["doc"]
        if field.name == "stop":
            group.add_argument(flag, action="append", help=shown, metavar="TEXT")
        else:
            whole = "int" in str(field.type)
            group.add_argument(flag, type=int if whole else float, help=shown)


def decoding(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what was given, for a verb."""
    given = {field.name: getattr(args, field.name) for field in _fields()}
    return {name: value for name, value in given.items() if value is not None}
