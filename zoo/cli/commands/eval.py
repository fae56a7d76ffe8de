"""Measure a run, or a model by name; the words are Hydra's."""

from __future__ import annotations

SECTION = "Train"


def run_raw(command: str, words: list[str]) -> int | None:
    """Hands the words over untouched: `-m`, `--cfg`, `+key=`, `~key` and `--help` are Hydra's."""
    from zoo.cli.train import main

    return main([command, *words])
