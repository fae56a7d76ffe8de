"""From a configuration to a run: its folder, its parts, the loop, and what is left behind.

RUN/experiment.json   the resolved configuration, the overrides and the version that made it
RUN/metrics.jsonl, metrics.csv, checkpoints/
RUN/model/            the best weights in the stored layout: zoo.load("dir:RUN")
RUN/result.json       how it ended
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.errors import ConfigError, TrainingError
from zoo.registry import Name, build, parse_name, resolve
from zoo.registry.nodes import read_tagged
from zoo.training.distributed import World, pick_device
from zoo.training.loop import Result, Trainer, move
from zoo.training.optim import freeze
from zoo.training.record import RESULT, read_run, write_json, write_run
from zoo.training.schema import EvalConfig, ExperimentConfig
from zoo.training.stages import with_stages

__all__ = ["evaluate", "train"]


def train(config: ExperimentConfig, overrides: Sequence[str] = (), quiet: bool = False) -> Result:
    """Runs an experiment, or goes on with it where its folder holds it already.

    Under torchrun every process calls this with the same configuration; the main one decides on
    the folder.
    Raises: ConfigError, DataError, WeightsError, TrainingError.
    """
    staged = with_stages(config)
    world = World.start(config.trainer)
    try:
        data = build(config.data)
        config = _with_labels(config, data)
        model = _model(_with_labels(staged, data))
        objective = build(config.objective)
        objective.check(model, data)
        freeze(model, config.trainable)
        stored = what_to_store(model, config)
        trainer: Trainer = build(
            config.trainer,
            model=model,
            train=data.split("train", model),
            test=data.split("test", model),
            objective=objective,
            optim=config.optim,
            schedule=config.schedule,
            world=world,
            seed=config.seed,
            quiet=quiet,
            stored=stored,
        )
        # only now: what cannot be built leaves no folder behind
        result = trainer.fit(_open_folder(config, world, overrides))
        if world.is_main:
            _write_result(result, overrides)
        world.barrier()
        return result
    finally:
        world.close()


def evaluate(config: EvalConfig) -> dict[str, float]:
    """Measures a run's exported weights, or a model by name, on held-out data; returns name ->
    number.

    Raises: UnknownName, ConfigError, DataError, WeightsError.
    """
    from zoo.api.build import load
    from zoo.data.loader import EvalLoader

    assert config.of is not None
    of, data, objective = config.of, config.data, config.objective
    folder = Path(of.removeprefix("dir:")).expanduser()
    if folder.is_dir():
        of = f"dir:{folder}"
        run = read_run(folder)
        if run is not None:
            data, objective = data or run.data, objective or run.objective
    else:
        _check_name(of)
    if data is None:
        raise ConfigError(
            f"data: {config.of!r} is no run, which would say what to measure on; add data=NAME."
        )
    device = pick_device(config.device)
    model = load(of, device=device)
    measured = build(objective if objective is not None else resolve("objective", "classification"))
    source = build(data)
    measured.check(model, source)
    loader = EvalLoader(source.split("test", model), batch=config.batch, workers=config.workers)
    bf16 = config.precision == "bf16"
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        batches = (move(batch, device) for batch in loader)
        return measured.evaluate(model, batches, World(device=device))


def _check_name(name: str) -> None:
    """Raises UnknownName for a name that nothing answers to, before anything else is said about
    it."""
    parsed = parse_name(name)
    if not parsed.scheme:
        read_tagged("model", parsed)


# -- the parts of a run ----------------------------------------------------------------------------


def _with_labels(config: ExperimentConfig, data: Any) -> ExperimentConfig:
    """Gives a model that does not name its classes the names that the data has."""
    model: Any = config.model
    fits = getattr(model, "classes", None) == len(data.labels)
    if fits and getattr(model, "labels", None) == []:
        model = dataclasses.replace(model, labels=list(data.labels))
    return dataclasses.replace(config, model=model)


def _model(config: ExperimentConfig) -> nn.Module:
    """Returns the model with the weights that the run starts from, equal in every process."""
    from zoo.api.stored import over_bases, read_base_files
    from zoo.models.base import build_empty, initialise, seeded
    from zoo.models.tuning import tuning_names
    from zoo.weights.bases import covered
    from zoo.weights.load import load_into

    model: Any = build_empty(config.model)
    bases = config.model.bases
    if config.weights is None and not bases:
        return initialise(model, config.seed)
    fresh = set(tuning_names(model))
    if config.weights is None:  # what no base fills is what the run is for
        fresh |= {name for name in model.state_dict() if not covered(name, bases)}
    weights = over_bases(model, _weights(config) if config.weights else {}, config.model)
    with seeded(config.seed):
        model.load_report = load_into(
            model, weights, partial=config.partial, fresh=fresh, dtype=torch.float32, copy=True
        )
    read_base_files(model, bases)
    return model


def _weights(config: ExperimentConfig) -> Any:
    """Returns the tensors to start from, by the model's own names."""
    from zoo.api.stored import stored_weights, tag_weights

    assert config.weights is not None
    model: Any = config.model
    if ":" in config.weights:
        return stored_weights(config.weights)
    return tag_weights(Name("", "model", tag=config.weights), model)[0]


def what_to_store(model: Any, config: ExperimentConfig) -> frozenset[str] | None:
    """Returns the tensors that `model/` shall hold, None for all of them, and notes in the model's
    config whose weights the others are.

    Raises: ConfigError when nothing could say where the others are.
    """
    from zoo.weights.bases import WHOLE, covered

    if config.export == "all":
        if hasattr(model, "config"):  # it will stand alone
            model.config = dataclasses.replace(model.config, bases={})
        return None
    bases: dict[str, str] = dict(model.config.bases)
    if not bases and config.weights is not None and ":" in config.weights:
        scheme, _, rest = config.weights.partition(":")
        bases = {WHOLE: f"dir:{Path(rest).resolve()}" if scheme == "dir" else config.weights}
        model.config = dataclasses.replace(model.config, bases=bases)
    if not bases:
        raise ConfigError(
            "export: 'trained' stores a part of the model, so model.bases (or weights=hf:… or "
            "dir:…) must say where the rest is."
        )
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    buffers = {name for name, _ in model.named_buffers()}  # statistics move without gradients
    new = set(model.load_report.new)
    return frozenset(
        name
        for name in model.state_dict()
        if name in learns | buffers | new or not covered(name, bases)
    )


def _open_folder(config: ExperimentConfig, world: World, overrides: Sequence[str]) -> Path:
    """Returns the run's folder, made by the main process; raises TrainingError when another run
    lies there."""
    folder, problem = "", ""
    if world.is_main:
        try:
            where = config.run.dir
            path = Path(where) if where is not None else _next_folder(Path(config.run.root))
            path.mkdir(parents=True, exist_ok=True)
            write_run(path, config, overrides)
            folder = str(path)
        except (TrainingError, ConfigError) as error:
            problem = str(error)
        except OSError as error:
            problem = f"The run's folder cannot be written: {error.strerror}: {error.filename}."
    folder, problem = world.broadcast((folder, problem))
    if problem:
        raise TrainingError(problem)
    return Path(folder)


def _next_folder(root: Path) -> Path:
    """Makes and returns root/N for the next N; two runs that start at once get two numbers."""
    root.mkdir(parents=True, exist_ok=True)
    number = max((int(p.name) for p in root.iterdir() if p.name.isdecimal()), default=0)
    while True:
        number += 1
        with contextlib.suppress(FileExistsError):
            (root / str(number)).mkdir()
            return root / str(number)


def _write_result(result: Result, overrides: Sequence[str]) -> None:
    plain = {key: value for key, value in vars(result).items() if key != "folder"}
    ended = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_json(result.folder / RESULT, {**plain, "overrides": list(overrides), "ended": ended})
