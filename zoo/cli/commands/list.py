"""Names: models, or those of another group (norm, position, data, …).

Examples:
    zoo list                     every model
    zoo list 'vit*'              models that match a shell pattern
    zoo list position            the names of a group
    zoo list --groups            the groups
"""

from __future__ import annotations

import argparse
from typing import Any

import zoo
from zoo.cli.output import add_json, is_terminal, print_json, print_table
from zoo.errors import ZooError
from zoo.registry.nodes import GROUPS, index, names, read_mapping

SECTION = "Look"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("group", nargs="?", metavar="GROUP", help="a group, or a pattern of models")
    parser.add_argument("pattern", nargs="?", help="a shell pattern, such as 'vit*'")
    parser.add_argument("--groups", action="store_true", help="list the groups instead")
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Prints the names."""
    if args.groups:
        _print_groups(args.json)
        return
    group, pattern = args.group or "model", args.pattern
    if group not in GROUPS and pattern is None and set(group) & set("*?["):
        group, pattern = "model", group
    found = names(group, pattern)
    if not (args.json or is_terminal()):
        print_table(["name"], [[name] for name in found])
        return
    rows = [_describe(group, name) for name in found]
    if args.json:
        print_json(rows)
    elif group == "model":
        print_table(
            ["model", "parameters", "weights", "what it is"],
            [[r["name"], _short(r["parameters"]), _tags(r["weights"]), r["title"]] for r in rows],
            right=["parameters"],
            caption=f"{len(rows)} models · zoo info NAME · other groups: zoo list --groups",
        )
    else:
        print_table([group, "kind", "from"], [[r["name"], r["kind"], r["origin"]] for r in rows])


def _print_groups(as_json: bool) -> None:
    rows = [{"group": k, "names": len(zoo.list(k)), "what": g.doc} for k, g in GROUPS.items()]
    if as_json:
        print_json(rows)
    else:
        table = [[row["group"], row["names"], row["what"]] for row in rows]
        print_table(["group", "names", "what its names are"], table, right=["names"])


def _describe(group: str, name: str) -> dict[str, Any]:
    """Returns what a node says of itself; of a name that a plugin makes up, only the name."""
    places = index(group).get(name)
    row: dict[str, Any] = {"name": name, "origin": places[0][0] if places else name.split("/")[0]}
    try:
        content = read_mapping(group, name) if places else {}
    except ZooError as error:  # one bad file must not hide the other names
        return row | {"kind": None, "error": str(error), **_MODEL_KEYS}
    row["kind"] = content.get("kind")
    if group == "model":
        from zoo.api.describe import parameter_counts

        card = content.get("card") or {}
        row |= {
            "title": card.get("title"),
            "license": card.get("license"),
            "parameters": parameter_counts().get(name),
            "weights": [*(content.get("weights") or {})],
        }
    return row


_MODEL_KEYS: dict[str, Any] = {"title": "broken: see zoo info", "parameters": None, "weights": []}


def _tags(tags: list[str]) -> str:
    """Returns the default tag and how many others there are."""
    others = f" +{len(tags) - 1}" if len(tags) > 1 else ""
    return f"{tags[0]}{others}" if tags else ""


def _short(count: int | None) -> str:
    """Returns 86567656 as `86.6 M`."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count and count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count or "")
