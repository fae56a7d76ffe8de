"""What a name is: size, inputs, licence, weights, and the code behind its parts.

Examples:
    zoo info vit-base-16
    zoo info vit-base-16 backbone.position=rope backbone.depth=6
    zoo info hf:org/repo@revision
    zoo info rope                          a part: every key, its value and what it means
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

import zoo
from zoo.cli.output import add_json, print_json, print_table
from zoo.cli.source import where
from zoo.errors import UnknownName
from zoo.registry import find_node, parse_name, read_node, to_mapping
from zoo.registry.folders import GROUPS, index, spelled
from zoo.registry.suggest import hint

SECTION = "Look"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("name", metavar="NAME", help="a model, or the name of a part")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys to change first")
    parser.add_argument("--group", metavar="GROUP", help="where to look, when it is no model")
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Prints the description."""
    group = args.group or _group_of(args.name)
    if group == "model":
        _print_model(zoo.info(args.name, *args.overrides), args.json)
    else:
        _print_part(group, args.name, args.overrides, args.json)


def _group_of(name: str) -> str:
    """Returns the group of a name: model if there is such a model or nothing, else what has it."""
    parsed = parse_name(name)
    if parsed.scheme or parsed.name in index("model"):
        return "model"
    groups = [group for group in GROUPS if spelled(group, name) in index(group)]
    if len(groups) > 1:
        raise UnknownName(f"{name!r} is a name in {', '.join(groups)}; say which by --group.")
    if not groups and not hint(name, index("model")):
        known = {part: group for group in GROUPS for part in index(group)}
        near = hint(name, known)
        if near and "/" not in name and "." not in name:
            raise UnknownName(f"Unknown name {name!r}.{near}")
    return groups[0] if groups else "model"


def _print_model(info: Any, as_json: bool) -> None:
    if as_json:
        print_json(info.to_mapping())
        return
    print(info)
    print()
    rows = [[key, builds.partition(":")[2], where(builds)] for key, builds in info.parts.items()]
    rows.insert(0, ["(model)", info.builds.partition(":")[2], where(info.builds)])
    print_table(["part", "class", "written in"], rows)


def _print_part(group: str, name: str, overrides: list[str], as_json: bool) -> None:
    config = read_node(group, name, overrides)
    values = to_mapping(config)
    fields = [field for field in dataclasses.fields(config) if field.init]
    if as_json:
        keys = {f.name: {"value": values[f.name], "doc": f.metadata.get("doc")} for f in fields}
        head = {"name": name, "group": group, "kind": config.zoo_kind, "builds": config.zoo_builds}
        print_json({**head, "file": str(find_node(group, name)[1]), "keys": keys})
        return
    print(f"{name}\n  {group:<11} kind {config.zoo_kind}, {config.zoo_builds}")
    print(f"  {'about':<11} {(type(config).__doc__ or '').strip()}")
    print(f"  {'written in':<11} {where(config.zoo_builds)}")
    print(f"  {'file':<11} {find_node(group, name)[1]}\n")
    rows = [[f.name, _plain(values[f.name]), f.metadata.get("doc")] for f in fields]
    print_table(["key", "value", "what it means"], rows)


def _plain(value: Any) -> str:
    if isinstance(value, dict) and "kind" in value:
        return str(value["kind"])
    return value if isinstance(value, str) else json.dumps(value)
