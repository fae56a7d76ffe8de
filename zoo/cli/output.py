"""How commands print: tables for a person, plain lines for a pipe, JSON for a program.

rich is imported only when a terminal is there to show it (70 ms that a pipe need not pay).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

__all__ = [
    "add_json",
    "is_terminal",
    "note",
    "print_json",
    "print_table",
    "progress",
    "progress_of_sound",
    "say_gain",
    "status",
]


def is_terminal(stream: Any = None) -> bool:
    """Returns whether a person reads the stream (stdout unless another is given)."""
    stream = stream or sys.stdout
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def add_json(parser: Any) -> None:
    """Gives a read command its `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def print_json(value: Any) -> None:
    """Prints a plain value as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def note(text: str) -> None:
    """Says something to the person beside the output that a program may read."""
    print(f"zoo: {text}", file=sys.stderr)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    right: Sequence[str] = (),
    caption: str | None = None,
) -> None:
    """Prints rows: a table on a terminal (with `right` columns), tab-separated lines otherwise."""
    if not is_terminal():
        for row in rows:
            print("\t".join("" if cell is None else str(cell) for cell in row))
        return
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.caption, table.caption_justify = caption and escape(caption), "left"
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if column in right else "left", no_wrap=index == 0)
    for row in rows:
        table.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
    Console().print(table)


@contextlib.contextmanager
def progress(total: int, text: str) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with how many more are done; draws a bar on a terminal's stderr."""
    if total < 2 or not is_terminal(sys.stderr):
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda done: bar.advance(task, done)


def say_gain(report: Any, what: str = "tokens") -> None:
    """Notes what guessing gained, of a zoo.generation.speculative.Report."""
    each = (report.accepted + report.passes) / max(report.passes, 1)
    note(
        f"draft: {report.acceptance:.0%} of {report.guessed} guesses were right, {each:.1f} {what} "
        "a pass" + (", and guessing was stopped where it was slower." if report.gave_up else ".")
    )


@contextlib.contextmanager
def progress_of_sound(
    files: int,
) -> Iterator[tuple[Callable[[float, float | None], None], Callable[[int], None]]]:
    """Yields (update, advance): one to call with the seconds of sound that are heard of a batch and
    how many it has (None: not known yet), one with how many more files are done. Draws a bar on a
    terminal's stderr: of seconds where one file's are known, otherwise of files."""
    if not is_terminal(sys.stderr):
        yield (lambda heard, known: None), (lambda more: None)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("transcribing", total=files if files > 1 else None)

        def update(heard: float, known: float | None) -> None:
            minutes, seconds = divmod(int(heard), 60)
            text = f"transcribing, {minutes}:{seconds:02d} heard"
            if files > 1:
                bar.update(task, description=text)
            else:
                bar.update(task, description=text, completed=heard, total=known)

        yield update, (lambda more: bar.advance(task, more) if files > 1 else None)


@contextlib.contextmanager
def status(text: str) -> Iterator[None]:
    """Shows that something takes a while, on a terminal's stderr."""
    if not is_terminal(sys.stderr):
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
