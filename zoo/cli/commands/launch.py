"""Train on several processes or machines: torchrun or Slurm."""

from __future__ import annotations

SECTION = "Train"


def run_raw(command: str, words: list[str]) -> int | None:
    """Hands the words over untouched."""
    from zoo.cli.launch import main

    return main(words)
