"""The fully resolved config of a name, every key with its value.

Examples:
    zoo cfg vit-digits backbone.position=rope
    zoo cfg position rope                      of another group
    zoo cfg experiment digits_vit optim.lr=1e-3
"""

from __future__ import annotations

import argparse
from typing import Any

import zoo
from zoo.cli.output import add_json, print_json
from zoo.registry import to_mapping
from zoo.registry.nodes import GROUPS

SECTION = "Look"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("name", metavar="NAME", help="a model; or a group, followed by a name")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys to change first")
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Prints the config as YAML, or as JSON."""
    group, name, overrides = "model", args.name, args.overrides
    if name in GROUPS and overrides and "=" not in overrides[0]:
        group, name, overrides = name, overrides[0], overrides[1:]
    if group == "experiment":
        mapping = _experiment([f"experiment={name}", *overrides])
    elif name.startswith("experiment="):
        mapping = _experiment([name, *overrides])
    else:
        mapping = to_mapping(zoo.config(name, *overrides, group=group))
    if args.json:
        print_json(mapping)
        return
    import yaml

    print(yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True), end="")


def _experiment(words: list[str]) -> dict[str, Any]:
    """Returns all of what `zoo train` would run; Hydra reads it, being a composition."""
    from zoo.cli.hydra_app import run_app
    from zoo.training.compose import typed

    found: list[dict[str, Any]] = []
    run_app("train", words, lambda cfg: found.append(to_mapping(typed(cfg))))
    return found[0]
