"""Train every combination of comma-separated values.

Examples:
    zoo sweep experiment=digits_vit optim.lr=1e-3,3e-4 seed=0,1
"""

from __future__ import annotations

SECTION = "Train"


def run_raw(command: str, words: list[str]) -> int | None:
    """Hands the words over untouched: `-m`, `--cfg`, `+key=`, `~key` and `--help` are Hydra's."""
    from zoo.cli.train import main

    return main([command, *words])
