"""Installed plugins: where each comes from, what it adds, what is wrong with it.

Examples:
    zoo plugins
    zoo plugins new acme                writes a working plugin to ./zoo-acme

The exit code is 1 when one of them is broken.
"""

from __future__ import annotations

import argparse
from typing import Any

from zoo.cli.output import add_json, print_json, print_table

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
    rows = [describe(plugin) for plugin in _installed()]
    if args.json:
        print_json(rows)
    elif rows:
        table = [[r["name"], r["distribution"], r["state"], r["adds"]] for r in rows]
        print_table(["plugin", "distribution", "state", "adds"], table)
    else:
        print("no plugins installed")
    return 1 if any(row["error"] for row in rows) else 0


def _installed() -> list[Any]:
    import zoo

    return [*zoo.plugins().values()]


def describe(plugin: Any) -> dict[str, Any]:
    """Returns what a plugin is and adds; imports its schemas, so that a broken one is found out."""
    from zoo.errors import ZooError
    from zoo.registry.nodes import GROUPS, index
    from zoo.registry.schema import KINDS

    error = plugin.error
    if error is None:
        try:
            plugin.import_schemas()
        except ZooError as problem:
            error = str(problem)
    prefix = f"{plugin.name}/"
    nodes = {g: [n for n in index(g) if n.startswith(prefix)] for g in GROUPS}
    kinds = {g: [n for h, n in KINDS if h == g and n.startswith(prefix)] for g in GROUPS}
    adds = {g: sorted({*nodes[g], *kinds[g]}) for g in GROUPS}
    words = [f"{len(found)} {group}" for group, found in adds.items() if found]
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "package": plugin.package,
        "state": "broken" if error else "ok",
        "error": error,
        "adds": error or ", ".join(words) or "names it makes up when asked",
        "names": {group: found for group, found in adds.items() if found},
    }
