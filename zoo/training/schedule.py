"""Schedules: functions from a step (counted from 0) to a factor on the peak learning rate. They
keep no state."""

from __future__ import annotations

import math
from collections.abc import Callable

from zoo.training.schema import (
    ConstantScheduleConfig,
    CosineScheduleConfig,
    InverseSqrtScheduleConfig,
    LinearScheduleConfig,
)

__all__ = ["Schedule", "constant", "cosine", "inverse_sqrt", "linear"]

Schedule = Callable[[int], float]


def _with_warmup(warmup: int, after: Schedule) -> Schedule:
    """Grows linearly to 1, which is reached at step `warmup - 1`."""
    return lambda step: (step + 1) / warmup if step < warmup else after(step)


def _progress(step: int, warmup: int, steps: int) -> float:
    """Returns how much of the time after the warm-up has passed, from 0 to 1."""
    return min(1.0, (step - warmup) / max(1, steps - warmup))


def constant(config: ConstantScheduleConfig, steps: int) -> Schedule:
    """Returns 1, with a linear fall over the last `cooldown` steps."""
    if not config.cooldown:
        return _with_warmup(config.warmup, lambda step: 1.0)
    return _with_warmup(
        config.warmup, lambda step: max(0.0, min(1.0, (steps - step) / config.cooldown))
    )


def cosine(config: CosineScheduleConfig, steps: int) -> Schedule:
    """Returns half a cosine from 1 to `floor`."""

    def after(step: int) -> float:
        falling = (1 + math.cos(math.pi * _progress(step, config.warmup, steps))) / 2
        return config.floor + (1 - config.floor) * falling

    return _with_warmup(config.warmup, after)


def linear(config: LinearScheduleConfig, steps: int) -> Schedule:
    """Returns a line from 1 to `floor`."""

    def after(step: int) -> float:
        return 1 - (1 - config.floor) * _progress(step, config.warmup, steps)

    return _with_warmup(config.warmup, after)


def inverse_sqrt(config: InverseSqrtScheduleConfig, steps: int) -> Schedule:
    """Returns sqrt(warmup / step) after the warm-up; `steps` plays no part."""
    return _with_warmup(config.warmup, lambda step: math.sqrt(config.warmup / (step + 1)))
