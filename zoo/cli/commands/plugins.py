"""Installed plugins: where each comes from, what it adds, what is wrong with it.

Examples:
    zoo plugins
    zoo plugins new acme                writes a working plugin to ./zoo-acme

The exit code is 1 when one of them is broken.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from zoo.cli.output import add_json, print_json, print_table

if TYPE_CHECKING:
    from zoo.registry.report import Report

SECTION = "House"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    add_json(parser)
    actions = parser.add_subparsers(dest="action", metavar="new")
    new = actions.add_parser("new", help="write a new plugin to start from")
    new.add_argument("name", help="its namespace: names are then NAME/…")
    new.add_argument("--dir", metavar="FOLDER", help="where to write it")


def run(args: argparse.Namespace) -> int:
    """Lists the plugins, or writes a new one."""
    if args.action == "new":
        from zoo.cli.scaffold import main

        return main([args.name, *(["--dir", args.dir] if args.dir else [])]) or 0
    from zoo.registry.plugins import describe

    found = describe()
    if args.json:
        print_json([each.to_mapping() for each in found])
    elif found:
        columns = ["plugin", "distribution", "state", "adds"]
        print_table(columns, [[r.name, r.distribution, r.state, _adds(r)] for r in found])
    else:
        print("no plugins installed")
    return 1 if any(each.problems for each in found) else 0


def _adds(found: Report) -> str:
    if found.problems:
        return "; ".join(found.problems)
    return ", ".join(f"{count} {group}" for group, count in found.adds.items()) or "no names yet"
