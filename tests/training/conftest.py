"""Small experiments on the shipped digits."""

from __future__ import annotations

from typing import Any

import pytest

from zoo.registry import apply_overrides

SMALL: dict[str, Any] = {
    "kind": "train",
    "model": {
        "name": "vit-digits",
        "backbone": {"width": 16, "depth": 1, "attention": {"heads": 2}},
    },
    "data": {"name": "digits", "augment": {"shift": 0.1, "rotate": 10}},
    "objective": {"smoothing": 0.1, "mixup": 0.3, "cutmix": 1.0},
    "schedule": {"warmup": 2},
    "trainer": {
        "steps": 8,
        "batch": 16,
        "log_every": 1,
        "eval_every": 4,
        "save_every": 4,
        "ema": 0.9,
        "timeout": 1,
    },
}


@pytest.fixture
def small():
    """Returns a function: the mapping of a small experiment, with dotted keys changed."""

    def experiment(folder, **changes: Any) -> dict[str, Any]:
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        return apply_overrides(SMALL, {"run.dir": str(folder), **dotted})

    return experiment
