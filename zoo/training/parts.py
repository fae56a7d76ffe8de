"""The parts of a model that are trained before it: a visual tokenizer, an encoder.

`parts: {visual: fsq-digits}` gives the submodule `visual` the weights of that model;
`parts: {visual: experiment:codes_digits}` first runs that experiment into run.root/codes_digits,
or goes on with it, so that one command makes all stages.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from zoo.errors import ConfigError, WeightsError
from zoo.registry import resolve, to_mapping

if TYPE_CHECKING:
    from zoo.training.schema import ExperimentConfig

__all__ = ["fill_parts"]

STAGE = "experiment:"


def fill_parts(model: nn.Module, config: ExperimentConfig) -> None:
    """Gives parts of a model their weights, in place.

    Raises: ConfigError for a part that the model lacks, WeightsError for weights of another shape;
    whatever loading them raises.
    """
    from zoo.api.build import load
    from zoo.weights.load import load_into

    for path, name in config.parts.items():
        try:
            part = model.get_submodule(path)
        except AttributeError:
            named = ", ".join(child for child, _ in model.named_children())
            raise ConfigError(f"parts: the model has no part {path!r}; it has {named}.") from None
        if name.startswith(STAGE):
            name = f"dir:{_stage(name.removeprefix(STAGE), config)}"
        learning = {key: p.requires_grad for key, p in part.named_parameters()}
        try:
            load_into(part, load(name).state_dict(), copy=True)
        except WeightsError as error:
            raise WeightsError(f"parts.{path}: {name} does not fit. {error}") from None
        for key, parameter in part.named_parameters():
            parameter.requires_grad_(learning[key])


def _stage(name: str, config: ExperimentConfig) -> Path:
    """Runs an experiment that comes first, or takes what it left; returns its folder."""
    from zoo.api.describe import config as read
    from zoo.training.record import RESULT
    from zoo.training.run import train

    folder = Path(config.run.root) / name
    if not (folder / RESULT).is_file():
        first: Any = to_mapping(read(name, group="experiment"))
        first["run"] = {"dir": str(folder), "root": config.run.root}
        train(resolve("experiment", first), quiet=False)
    return folder
