"""Schemas of training: objectives, optimisers, schedules, the trainer, whole experiments.
Torch-free."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Any, Literal

from zoo.data.schema import DataConfig
from zoo.errors import ConfigError, UnknownName
from zoo.models.schema import ModelConfig
from zoo.registry import kind, parse_name, part, section, setting
from zoo.registry.suggest import hint

# -- objectives ------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class ObjectiveConfig:
    """What a model is trained for: a loss, and the numbers that say how good it is
    (`zoo.training.objective`)."""


@kind("objective", "classification", builds="zoo.training.classification:Classification")
@dataclass(kw_only=True)
class ClassificationConfig(ObjectiveConfig):
    """Cross-entropy over classes; measures accuracy."""

    smoothing: float = setting(
        0.0, "share of the target spread evenly over all classes", low=0.0, high=1.0
    )
    mixup: float = setting(
        0.0, "alpha of the Beta distribution of shares; 0 mixes nothing (arXiv 1710.09412)", low=0.0
    )
    cutmix: float = setting(
        0.0, "the same for a box of one picture in another (arXiv 1905.04899)", low=0.0
    )
    mix_chance: float = setting(
        1.0, "share of the pairs that are mixed; with both kinds on, each does half", low=0, high=1
    )
    top: list[int] = setting(
        [5], "also measure whether the class is among the k most probable", low=1
    )


# -- optimisers ------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class OptimConfig:
    """What every optimiser shares."""

    lr: float = setting(1e-3, "peak learning rate; the schedule multiplies it", above=0.0)
    weight_decay: float = setting(
        0.05, "decoupled weight decay of matrices; norms, biases and embeddings have none", low=0.0
    )
    decay: list[str] = setting([], "patterns of parameters that decay although they would not")
    no_decay: list[str] = setting(
        [], "patterns of parameters that do not decay although they would"
    )


@kind("optim", "adamw", builds="zoo.training.optim:adamw")
@dataclass(kw_only=True)
class AdamWConfig(OptimConfig):
    """Loshchilov and Hutter 2017, arXiv 1711.05101; PyTorch's own."""

    betas: tuple[float, float] = setting(
        [0.9, 0.999], "memory of the gradient and of its square", low=0.0, high=1.0
    )
    eps: float = setting(1e-8, "added to the root of the mean square", above=0.0)


@kind("optim", "timm", builds="zoo.training.optim:timm")
@dataclass(kw_only=True)
class TimmOptimConfig(OptimConfig):
    """Any of timm's optimisers by its name there: lion, lamb, adafactor, muon, adopt, nadamw, …"""

    algorithm: str = setting("lion", "its name in timm.optim.list_optimizers()")
    options: dict[str, Any] = setting({}, "further keys that it takes, as timm calls them")


# -- schedules -------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class ScheduleConfig:
    """The learning rate over the steps, as a factor on `optim.lr`."""

    warmup: int = setting(0, "steps over which the factor grows linearly to 1", low=0)


@kind("schedule", "constant", builds="zoo.training.schedule:constant")
@dataclass(kw_only=True)
class ConstantScheduleConfig(ScheduleConfig):
    """1, then, where `cooldown` is given, linearly to 0 at the end (warm-up, stable, decay)."""

    cooldown: int = setting(0, "last steps, over which the factor falls to 0", low=0)


@kind("schedule", "cosine", builds="zoo.training.schedule:cosine")
@dataclass(kw_only=True)
class CosineScheduleConfig(ScheduleConfig):
    """Half a cosine from 1 to `floor` (Loshchilov and Hutter 2016, arXiv 1608.03983)."""

    floor: float = setting(0.0, "factor at the last step", low=0.0, high=1.0)


@kind("schedule", "linear", builds="zoo.training.schedule:linear")
@dataclass(kw_only=True)
class LinearScheduleConfig(ScheduleConfig):
    """A line from 1 to `floor` (BERT)."""

    floor: float = setting(0.0, "factor at the last step", low=0.0, high=1.0)


@kind("schedule", "inverse-sqrt", builds="zoo.training.schedule:inverse_sqrt")
@dataclass(kw_only=True)
class InverseSqrtScheduleConfig(ScheduleConfig):
    """sqrt(warmup / step) after the warm-up (Vaswani et al. 2017, section 5.3, where the peak is
    (d warmup)^-1/2)."""

    warmup: int = setting(4000, "steps over which the factor grows linearly to 1", low=1)


# -- the trainer -----------------------------------------------------------------------------------


@kind("trainer", "loop", builds="zoo.training.loop:Trainer")
@dataclass(kw_only=True)
class TrainerConfig:
    """How long, on what, how often measured and saved."""

    # how long
    steps: int | None = setting(1000, "optimiser steps", low=0)
    epochs: float | None = setting(None, "instead of steps: passes over the data", above=0.0)
    batch: int = setting(64, "samples of a step, over all processes and micro batches", low=1)
    accumulate: int = setting(1, "micro batches that a process makes of its share of a step", low=1)
    # how
    clip: float | None = setting(1.0, "largest norm of the gradients; null lets them be", above=0.0)
    ema: float | None = setting(
        None,
        "decay of an average of the weights, which is then measured and exported; null keeps none",
        low=0.0,
        high=1.0,
    )
    precision: Literal["fp32", "bf16"] = setting("fp32", "of the forward and backward pass")
    strategy: Literal["auto", "none", "ddp", "fsdp2"] = setting(
        "auto", "how processes share the work: auto is ddp when there are several"
    )
    unused_parameters: bool = setting(False, "ddp: some parameters take no part in some steps")
    device: str = setting("auto", "cpu, cuda, …; auto is the accelerator, if there is one")
    timeout: float = setting(30.0, "minutes that a process waits for the others", above=0.0)
    # how often
    log_every: int = setting(10, "steps between lines in the log", low=1)
    eval_every: int | None = setting(None, "steps between measurements; null is at the end", low=1)
    eval_batch: int = setting(256, "samples that a process measures at once", low=1)
    save_every: int | None = setting(None, "steps between checkpoints; null is at the end", low=1)
    keep: int = setting(2, "checkpoints that are kept, newest first", low=1)
    best: str | None = setting(
        None,
        "metric whose best weights are exported; null is the objective's, 'last' the last ones",
    )
    tensorboard: bool = setting(False, "also write TensorBoard files (needs tensorboard)")
    # data
    workers: int = setting(1, "threads that prepare batches; 0 prepares them in between", low=0)
    prefetch: int = setting(2, "batches that are prepared ahead", low=1)

    def check(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ConfigError("steps: give either steps or epochs, and null for the other.")
        if self.batch % self.accumulate:
            raise ConfigError(
                f"accumulate: {self.batch} samples do not divide into {self.accumulate} micro "
                "batches."
            )


# -- experiments -----------------------------------------------------------------------------------


@dataclass(kw_only=True)
class RunConfig:
    """Where a run lies."""

    dir: str | None = setting(
        None, "folder of the run, which goes on if it is there already; null takes a new root/N"
    )
    root: str = setting("runs", "where numbered runs go")


@kind("experiment", "train", builds="zoo.training.run:train")
@dataclass(kw_only=True)
class ExperimentConfig:
    """What `zoo train` runs."""

    seed: int = setting(0, "of new weights, of the order of the data, of everything random", low=0)
    model: ModelConfig = part("model", None, "what is trained")
    weights: str | None = setting(
        None, "start from a weights tag of the model, hf:org/repo@revision or dir:path; null: new"
    )
    partial: bool = setting(False, "load what fits of those weights, give the rest new ones")
    trainable: list[str] = setting(
        ["*"], "patterns of the parameters that learn; the rest is frozen"
    )
    export: Literal["all", "trained"] = setting(
        "all", "what model/ holds: the whole model, or what the run made, over the model's bases"
    )
    data: DataConfig = part("data", "digits", "what it learns from")
    objective: ObjectiveConfig = part("objective", "classification", "what for")
    optim: OptimConfig = part("optim", "adamw", "how its parameters move")
    schedule: ScheduleConfig = part("schedule", "cosine", "the learning rate over the steps")
    trainer: TrainerConfig = part("trainer", "default", "how long, on what, how often saved")
    run: RunConfig = section(RunConfig, doc="where it lies")

    def check(self) -> None:
        if self.model is None:
            raise ConfigError(
                "model: nothing says what to train; give model=NAME or experiment=NAME "
                "(zoo list model, zoo list experiment)."
            )
        check_weights(self.weights, self.model)
        if not self.trainable:
            raise ConfigError(
                "trainable: with no pattern nothing would learn; ['*'] is everything."
            )


@kind("experiment", "eval", builds="zoo.training.run:evaluate")
@dataclass(kw_only=True)
class EvalConfig:
    """What `zoo eval` runs."""

    of: str | None = setting(None, "a run's folder, or a model's name; must be given")
    data: DataConfig | None = part("data", None, "what to measure on; null is the run's own")
    objective: ObjectiveConfig | None = part(
        "objective", None, "what to measure; null is the run's"
    )
    batch: int = setting(256, "samples measured at once", low=1)
    workers: int = setting(1, "threads that prepare batches", low=0)
    device: str = setting("auto", "cpu, cuda, …; auto is the accelerator, if there is one")
    precision: Literal["fp32", "bf16"] = setting("fp32", "of the forward pass")

    def check(self) -> None:
        if self.of is None:
            raise ConfigError("of: nothing says what to measure, as in zoo eval runs/7.")


def check_weights(weights: str | None, model: Any) -> None:
    """Raises UnknownName when `weights` is neither a tag of the model nor hf:… or dir:…."""
    if weights is None:
        return
    if ":" in weights:
        parse_name(weights)
    elif weights not in model.weights:
        known = f"Tags: {', '.join(model.weights)}." if model.weights else "This model has none."
        raise UnknownName(
            f"weights: the model has no weights {weights!r}.{hint(weights, model.weights, known)}"
        )


def matches(name: str, patterns: list[str]) -> bool:
    """Returns whether a parameter's name matches one of the shell patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
