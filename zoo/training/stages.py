"""The models that a run grows on, where they have to be trained first.

A model's `bases` say whose weights fill its modules. In a run, `experiment:NAME` may stand there,
as in `model.bases.visual=experiment:codes_digits`: that experiment is run first, into
run.root/NAME, or goes on there, so that one command makes all stages.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.registry import resolve, to_mapping

if TYPE_CHECKING:
    from zoo.training.schema import ExperimentConfig

__all__ = ["with_stages"]

STAGE = "experiment:"


def with_stages(config: ExperimentConfig) -> ExperimentConfig:
    """Returns the experiment with folders in place of the experiments that come first, which have
    been run by then; raises whatever running them does."""
    model: Any = config.model
    bases = {
        module: f"dir:{_stage(name.removeprefix(STAGE), config)}"
        for module, name in model.bases.items()
        if name.startswith(STAGE)
    }
    if not bases:
        return config
    model = dataclasses.replace(model, bases={**model.bases, **bases})
    return dataclasses.replace(config, model=model)


def _stage(name: str, config: ExperimentConfig) -> Path:
    """Runs an experiment that comes first, or takes what it left; returns its folder."""
    from zoo.api.describe import config as read
    from zoo.training.record import RESULT
    from zoo.training.run import train

    folder = Path(config.run.root).resolve() / name
    if not (folder / RESULT).is_file():
        first: Any = to_mapping(read(name, group="experiment"))
        first["run"] = {"dir": str(folder), "root": config.run.root}
        train(resolve("experiment", first), quiet=False)
    return folder
