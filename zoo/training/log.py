"""What a run says: lines in a file, a table, TensorBoard, and to the person who watches.

    RUN/metrics.jsonl    one JSON object a line; the record that everything else is made from
    RUN/metrics.csv      the same as a table
    RUN/tensorboard/     when asked for

A full disk costs lines, never the run.
"""

from __future__ import annotations

import csv
import importlib
import json
import math
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError

__all__ = ["Log", "Screen"]


class Log:
    """The files of a run's log, for the one process that writes them."""

    def __init__(self, folder: Path, *, start: int = 0, tensorboard: bool = False) -> None:
        self.lines_file, self.table_file = folder / "metrics.jsonl", folder / "metrics.csv"
        self.columns: list[str] = []
        self._warned = False
        self._board = _board(folder / "tensorboard", start) if tensorboard else None
        if self.lines_file.is_file():
            self._rewind(start)

    def _rewind(self, step: int) -> None:
        """Forgets what was written after `step`: a resumed run writes it again."""
        lines = [line for line in self.read() if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        temporary = self.lines_file.with_suffix(".tmp")
        try:
            temporary.write_text(text)
            temporary.replace(self.lines_file)
            self._rewrite_table(lines)
        except OSError as error:
            self._complain(error)

    def read(self) -> list[dict[str, Any]]:
        """Returns the lines written so far; a last one that was cut off by a crash is left out."""
        if not self.lines_file.is_file():
            return []
        lines = []
        for line in self.lines_file.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes the numbers of a step. What JSON has no word for (nan, infinity) becomes null."""
        line: dict[str, Any] = {"step": step, **{k: _plain(v) for k, v in values.items()}}
        try:
            with self.lines_file.open("a") as file:
                file.write(json.dumps(line) + "\n")
            self._add_row(line)
        except OSError as error:
            self._complain(error)
        if self._board is not None:
            for key, value in values.items():
                self._board.add_scalar(key, value, step)

    def _add_row(self, line: dict[str, Any]) -> None:
        if set(line) <= set(self.columns):
            with self.table_file.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(line)
        else:  # happens when the first measurement brings its columns
            self._rewrite_table(self.read())

    def _rewrite_table(self, lines: list[dict[str, Any]]) -> None:
        self.columns = list(dict.fromkeys(key for line in lines for key in line))
        temporary = self.table_file.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            table = csv.DictWriter(file, self.columns)
            table.writeheader()
            table.writerows(lines)
        temporary.replace(self.table_file)

    def _complain(self, error: OSError) -> None:
        if not self._warned:
            warnings.warn(
                f"{self.lines_file} could not be written ({error.strerror}); training goes on.",
                stacklevel=3,
            )
        self._warned = True

    def close(self) -> None:
        """Ends the TensorBoard files."""
        if self._board is not None:
            self._board.close()


def _board(folder: Path, start: int) -> Any:
    try:
        board = importlib.import_module("torch.utils.tensorboard")
        return board.SummaryWriter(folder, purge_step=start + 1 if start else None)
    except ImportError:
        raise ConfigError(
            "trainer.tensorboard: tensorboard is not installed: pip install tensorboard."
        ) from None


def _plain(value: float) -> float | None:
    if isinstance(value, int):
        return value
    return float(f"{value:.9g}") if math.isfinite(value) else None


class Screen:
    """A progress bar on a terminal, plain lines anywhere else, silence in every process but the
    main one."""

    def __init__(self, steps: int, done: int, show: bool = True) -> None:
        self.steps, self.show = steps, show
        self.width = len(str(steps))
        self.started, self.first = time.monotonic(), done
        self._bar: Any = None
        if show and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._bar = _bar(steps, done)

    def say(self, step: int, values: dict[str, float]) -> None:
        """Shows the numbers of a step."""
        words = "  ".join(f"{key} {_short(value)}" for key, value in values.items())
        self.note(f"step {step:>{self.width}}/{self.steps}  {words}")

    def note(self, line: str) -> None:
        """Shows a line."""
        if not self.show:
            return
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def advance(self, step: int) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()


def _bar(steps: int, done: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        "training", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    bar.add_task("training", total=steps, completed=done)
    bar.start()
    return bar


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"
