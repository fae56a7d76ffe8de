"""The most probable classes of files or texts.

Examples:
    zoo classify vit-digits scan.png
    zoo classify vit-digits scans/ --top 3 --json
    zoo classify dir:runs/7 "import tkinter as tk"

A text model reads what is given as texts. A folder stands for the files in it. A file that cannot
be read gets a line on stderr, and the exit code is 1.
"""

from __future__ import annotations

import argparse
from typing import Any

from zoo.cli.inputs import add_model, expand, load_model
from zoo.cli.output import add_json, note, print_json, print_table, progress
from zoo.errors import ConfigError, DataError

SECTION = "Use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    add_model(parser)
    parser.add_argument("files", nargs="+", metavar="FILE", help="files, folders, or texts")
    parser.add_argument("--top", type=int, default=5, help="how many classes (default 5)")
    parser.add_argument("--batch", type=int, default=32, help="files at a time (default 32)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints one line per file."""
    if args.top < 1 or args.batch < 1:
        raise ConfigError("--top and --batch must be at least 1.")
    model = load_model(args, "classify")
    files = args.files if _reads_text(model) else expand(args.files)
    rows: list[dict[str, Any]] = []
    failed = 0
    with progress(len(files), "classifying") as advance:
        for start in range(0, len(files), args.batch):
            batch = files[start : start + args.batch]
            for file, answer in zip(batch, _classify(model, batch, args.top)):
                if isinstance(answer, DataError):
                    note(str(answer))
                    failed += 1
                else:
                    rows.append({"file": file, "classes": [vars(p) for p in answer]})
            advance(len(batch))
    if args.json:
        print_json(rows)
    else:
        lines = [[row["file"], *_words(row["classes"])] for row in rows]
        columns = ["file", *("best" if i == 0 else str(i + 1) for i in range(args.top))]
        print_table(columns[: max(map(len, lines), default=1)], lines)
    return 1 if failed else 0


def _classify(model: Any, files: list[str], top: int) -> list[Any]:
    """Returns an answer per file; when one of them cannot be read, the others still get theirs."""
    try:
        return model.classify(files, top=top)
    except DataError as error:
        if len(files) == 1:
            return [error]
        return [answer for file in files for answer in _classify(model, [file], top)]


def _reads_text(model: Any) -> bool:
    from zoo.models.text.verbs import ReadsText

    return isinstance(model, ReadsText)


def _words(classes: list[dict[str, Any]]) -> list[str]:
    return [f"{item['label']} ({item['probability']:.1%})" for item in classes]
