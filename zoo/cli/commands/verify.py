"""Compare every file of a pulled model with what the hub says it should be.

Examples:
    zoo verify vit-base-16.augreg
    zoo verify hf:acme/my-muse@v1
    zoo verify runs/7/model --against acme/my-muse

The exit code is 1 when a file is damaged or missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from zoo.cli.output import add_json, print_json, print_table
from zoo.errors import UnknownName

SECTION = "Share"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("name", metavar="NAME", help="a model's name, hf:org/repo, or a folder")
    parser.add_argument("--against", metavar="REPO", help="compare a folder with this repository")
    parser.add_argument("--cache", metavar="FOLDER", help="instead of the usual cache")
    parser.add_argument("--offline", action="store_true", help="do not ask the hub")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Verifies."""
    from zoo.hub.client import verify

    target, revision = _target(args.name)
    report = verify(target, revision, against=args.against, cache=args.cache, offline=args.offline)
    if args.json:
        files = [vars(file) for file in report.files]
        head = {"folder": str(report.folder), "compared_with": report.compared_with}
        print_json({"ok": report.ok, **head, "files": files})
    else:
        rows = [[f.path, f.state, f"{f.size:,}", f.detail] for f in report.files]
        print_table(["file", "state", "bytes", ""], rows, right=["bytes"])
        against = f" (compared with {report.compared_with})" if report.compared_with else ""
        print(f"{'whole' if report.ok else 'damaged'}: {report.folder}{against}")
    return 0 if report.ok else 1


def _target(name: str) -> tuple[str, str | None]:
    """Returns (folder or repository, revision) of a name."""
    import zoo
    from zoo.api.describe import node_config
    from zoo.registry import parse_name

    if Path(name).expanduser().is_dir():
        return name, None
    parsed = parse_name(name)
    if parsed.scheme:
        return parsed.name, parsed.revision
    typed = node_config(parsed, (), {})
    tag = typed.weights[parsed.tag] if parsed.tag else next(iter(typed.weights.values()), None)
    if tag is None:
        raise UnknownName(f"{name!r} has no weights to verify.")
    return (tag.repo, tag.revision) if tag.repo else (str(zoo.pull(name)), None)
