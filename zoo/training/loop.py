"""The training loop: plain torch, any modality.

A step is a function of (weights, optimiser state, seed, step): its data, its learning rate and its
random numbers are computed from the step's number. So a checkpoint is weights, optimiser state and
average, and a run that was killed goes on bit for bit as if nothing had happened.
"""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.base import Batch, Dataset
from zoo.data.draw import fold
from zoo.data.loader import EvalLoader, TrainLoader
from zoo.errors import TrainingError, WeightsError
from zoo.models.base import initialise
from zoo.registry import build
from zoo.training.checkpoint import Checkpoints, SaveFailed
from zoo.training.distributed import World, reshard, spread, synchronised, unwrap
from zoo.training.log import Log, Screen
from zoo.training.objective import Objective
from zoo.training.opponent import Opponent
from zoo.training.optim import parameter_groups
from zoo.training.schema import OptimConfig, ScheduleConfig, TrainerConfig
from zoo.training.state import State, export
from zoo.training.watch import Finite, signals

__all__ = ["Result", "Trainer", "move"]


@dataclass
class Result:
    """How a run ended."""

    folder: Path
    step: int
    metrics: dict[str, float] = field(default_factory=dict)  # of the last measurement
    best: dict[str, Any] | None = None  # {"metric", "value", "step"} of the exported weights
    stopped_by: int | None = None  # signal number; None when all steps were made
    seconds: float = 0.0  # of this process, this time
    cpu_seconds: float = 0.0
    parameters: int = 0  # of the model
    trained: int = 0  # of these, how many learn


class Trainer:
    """Trains a model: `Trainer(config, …).fit(folder)`.

    Args:
        config: how long, on what, how often measured and saved.
        model: with its weights, on the CPU, equal in every process; trained in place.
        train, test: data sets prepared for the model; without `test` nothing is measured.
        objective: see `zoo.training.objective`.
        stored: names of the tensors that `model/` shall hold; None for all.
    Raises: ConfigError and DataError for parts that do not go together.
    """

    def __init__(
        self,
        config: TrainerConfig,
        *,
        model: nn.Module,
        train: Dataset,
        test: Dataset | None,
        objective: Objective,
        optim: OptimConfig,
        schedule: ScheduleConfig,
        world: World | None = None,
        seed: int = 0,
        quiet: bool = False,
        stored: Collection[str] | None = None,
    ) -> None:
        self.config, self.objective, self.seed = config, objective, seed
        self.world = world or World()
        self.samples = len(train)
        self.steps = config.steps if config.steps is not None else _steps(config, len(train))
        place: dict[str, Any] = {"rank": self.world.rank, "world": self.world.size}
        place |= {"workers": config.workers, "prefetch": config.prefetch}
        self.loader = TrainLoader(
            train, batch=config.batch, accumulate=config.accumulate, seed=seed, **place
        )
        self.test = EvalLoader(test, batch=config.eval_batch, **place) if test is not None else None
        self.model = spread(model, self.world, config)
        self.module = unwrap(self.model)
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer = build(optim, groups=parameter_groups(self.module, optim))
        counts = [(p.numel(), p.requires_grad) for p in self.module.parameters()]
        self.size = sum(count for count, _ in counts)
        self.learning = sum(count for count, learns in counts if learns)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.schedule = build(schedule, steps=self.steps)
        self.opponent = self._opponent(optim)
        self.state = State(self.module, self.optimizer, config.ema, self.opponent)
        self.finite = Finite(self.world)
        self.stored = stored
        self.quiet = quiet or not self.world.is_main
        self.step = 0
        self.saved: int | None = None  # step of the newest checkpoint
        self.measured: int | None = None  # step of the last measurement
        self.metrics: dict[str, float] = {}
        self.best: dict[str, Any] | None = None

    def _opponent(self, optim: OptimConfig) -> Opponent | None:
        """Returns what learns against the model, equal in every process, or None."""
        network = self.objective.opponent
        if network is None:
            return None
        initialise(network, self.seed)
        network.to(self.world.device).train()
        return Opponent(network, build(optim, groups=parameter_groups(network, optim)), self.world)

    # -- the loop ----------------------------------------------------------------------------------

    def fit(self, folder: str | Path) -> Result:
        """Trains to the last step, or until SIGTERM or SIGINT asks for a checkpoint and an early
        end; goes on from the folder's newest checkpoint, if it has one.

        Checkpoints, logs and `model/` go to the folder. Raises: TrainingError.
        """
        wall, cpu = time.monotonic(), time.process_time()
        self.folder = Path(folder)
        self.checkpoints = Checkpoints(self.folder / "checkpoints", self.world, self.config.keep)
        self._resume()
        self.log: Log | None = None
        if self.world.is_main:
            self.log = Log(self.folder, start=self.step, tensorboard=self.config.tensorboard)
        self.screen = Screen(self.steps, self.step, not self.quiet)
        if self.learning < self.size:
            share = self.learning / self.size
            self.screen.note(f"{self.learning:,} of {self.size:,} parameters learn ({share:.2%})")
        stopped_by = None
        try:
            with signals() as received:
                for step, batches in self.loader.steps(self.step, self.steps):
                    stopped_by = self._make_step(step, batches, received)
                    if stopped_by:
                        break
            self._finish(stopped_by)
        finally:
            self.screen.close()
            if self.log is not None:
                self.log.close()
        seconds = time.monotonic() - wall, time.process_time() - cpu
        return Result(
            self.folder, self.step, self.metrics, self.best, stopped_by, *seconds,
            self.size, self.learning,
        )  # fmt: skip

    def _make_step(self, step: int, batches: list[Batch], received: list[int]) -> int | None:
        """Makes one step and whatever is due after it; returns the signal that asks for the end, if
        one does."""
        clock = time.monotonic()
        torch.manual_seed(fold(self.seed, step, self.world.rank))  # dropout and the like
        share = self.schedule(step)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share
        self.objective.begin(self.model, step, self.steps)
        weights = [self.objective.weight(batch) for batch in batches]
        # The one message of a step that all need: how much there is, and who was asked to stop.
        message = torch.tensor([sum(weights), max(received, default=0)], dtype=torch.float64)
        total, stop = self.world.sum(message).tolist()
        scalars = self._backward(batches, weights, total)
        norm = self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.opponent is not None:
            self.opponent.step(share)
        if self.state.average is not None:
            self.state.average.update(step)
        self.step = step + 1
        self.finite.add(self.step, scalars["loss"], norm)
        if self._due(self.config.log_every) or self.step in (1, self.steps):
            self._report(scalars, norm, time.monotonic() - clock)
        if self._due(self.config.eval_every) or self.step == self.steps:
            self.evaluate()
        if self._due(self.config.save_every):
            self._save()
        self.screen.advance(self.step)
        # With several processes the sum says that somebody was asked, not by which signal.
        return (max(received, default=0) or int(signal.SIGTERM)) if stop else None

    def _backward(
        self, batches: list[Batch], weights: list[float], total: float
    ) -> dict[str, Tensor]:
        """Adds up the gradients of the step's mean loss; returns this process's part of what is
        logged.

        DDP and FSDP2 divide by the number of processes. That is put right here, so that the result
        is a mean over items (samples, tokens) however they are spread.
        """
        self.model.train()
        parts: dict[str, Tensor] = {}
        for number, (batch, weight) in enumerate(zip(batches, weights, strict=True)):
            batch = move(batch, self.world.device)
            with synchronised(self.model, number == len(batches) - 1):
                with self._autocast():
                    loss = self.objective(self.model, batch)
                (loss.value * (weight * self.world.size / total)).backward()
            if loss.opponent is not None:
                (loss.opponent * (weight / total)).backward()
            for name, value in {"loss": loss.value, **loss.scalars}.items():
                share = value.detach().float() * (weight / total)
                parts[name] = parts[name] + share if name in parts else share
        return parts

    def _clip(self) -> Tensor:
        """Returns the norm of the gradients, after scaling them down to the allowed one."""
        limit = float("inf") if self.config.clip is None else self.config.clip
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    def _autocast(self) -> AbstractContextManager[Any]:
        # FSDP2 casts by itself, unit by unit.
        if self.config.precision == "fp32" or self.config.strategy == "fsdp2":
            return nullcontext()
        return torch.autocast(self.world.device.type, torch.bfloat16)

    def _due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    # -- what is due after a step ------------------------------------------------------------------

    def _report(self, scalars: dict[str, Tensor], norm: Tensor, seconds: float) -> None:
        self._refuse_infinite()
        names = sorted(scalars)
        values = self.world.sum(torch.stack([scalars[name] for name in names]).cpu()).tolist()
        line = {
            "epoch": self.step * self.config.batch / self.samples,
            **dict(zip(names, values, strict=True)),
            "lr": self.optimizer.param_groups[0]["lr"],
            "grad_norm": float(norm),
        }
        if self.log is not None:
            self.log.write(self.step, {**line, "seconds_per_step": seconds})
        shown = {key: line[key] for key in (*names, "lr", "grad_norm")}
        self.screen.say(self.step, {**shown, "samples/s": int(self.config.batch / seconds)})

    def evaluate(self) -> dict[str, float]:
        """Measures the model (its average, where one is kept) on the held-out data, and exports the
        weights when they are the best so far."""
        if self.test is None:
            return {}
        self._refuse_infinite()
        with self.state.averaged():
            self.metrics = self._measure(self.test)
            self.measured = self.step
            self._keep_best()
        line = {f"eval/{name}": value for name, value in self.metrics.items()}
        if self.log is not None:
            self.log.write(self.step, line)
        self.screen.say(self.step, line)
        if self.world.is_main:
            for name, picture in self.objective.pictures().items():
                self._keep_picture(name, picture)
        return self.metrics

    def _keep_picture(self, name: str, picture: Any) -> None:
        """Writes a picture of the last measurement; a full disk costs it, not the run."""
        file = self.folder / "samples" / f"{self.step:06d}-{name}.png"
        try:
            file.parent.mkdir(exist_ok=True)
            picture.save(file)
        except OSError as error:
            warnings.warn(f"{file} could not be written: {error.strerror}.", stacklevel=2)

    def _measure(self, loader: EvalLoader) -> dict[str, float]:
        self.model.eval()
        batches = (move(batch, self.world.device) for batch in loader)
        # The module itself: gradients are off, so DDP would add nothing but messages.
        with torch.no_grad(), self._autocast():
            metrics = self.objective.evaluate(self.module, batches, self.world)
        reshard(self.module)
        return metrics

    def _keep_best(self) -> None:
        name = self.config.best or self.objective.metric
        if name == "last":
            return
        if name not in self.metrics:
            raise TrainingError(
                f"trainer.best: nothing measures {name!r}; there is {', '.join(self.metrics)}."
            )
        value, old = self.metrics[name], self.best
        higher = self.objective.higher_is_better(name)
        if old is not None and (value <= old["value"] if higher else value >= old["value"]):
            return
        if self._export():
            self.best = {"metric": name, "value": value, "step": self.step}

    def _refuse_infinite(self) -> None:
        """Raises TrainingError if a loss or gradient since the last look was no number."""
        first = self.finite.first_bad()
        if first is None:
            return
        kept = "no checkpoint was written yet"
        if self.saved is not None:
            kept = f"the checkpoint of step {self.saved} in {self.checkpoints.folder} is kept"
        raise TrainingError(
            f"The loss or its gradient was no number at step {first}; {kept}. A lower optim.lr, a "
            "longer schedule.warmup or a lower trainer.clip may help."
        )

    def _finish(self, stopped_by: int | None) -> None:
        """Saves and exports what the last step left."""
        if not stopped_by and self.measured != self.step:  # a run of no steps
            self.evaluate()
        if self.saved != self.step:
            self._save(last=True)
        if stopped_by or (self.config.best != "last" and self.best is not None):
            return
        with self.state.averaged():
            if not self._export():
                raise TrainingError(
                    f"The trained model could not be written to {self.folder / 'model'}; its "
                    f"checkpoint is: free some space, then zoo train resume={self.folder}."
                )

    # -- weights in and out ------------------------------------------------------------------------

    def _save(self, last: bool = False) -> None:
        """Writes a checkpoint. A full disk costs it, not the run, unless it is the last one."""
        self._refuse_infinite()
        state = {
            "batch": self.config.batch,
            "best": self.best,
            "measured": self.measured,
            "metrics": self.metrics,
        }
        try:
            self.checkpoints.save(self.step, self.state.tensors(), state)
            self.saved = self.step
        except SaveFailed as error:
            if last:
                raise TrainingError(
                    f"{error} Free some space, then zoo train resume={self.folder}."
                ) from None
            if self.world.is_main:
                warnings.warn(f"{error} Training goes on.", stacklevel=2)

    def _resume(self) -> None:
        """Takes up the newest whole checkpoint of the folder, if there is one."""
        newest = self.checkpoints.newest_whole()
        if newest is None:
            return
        found, state = newest
        if state["batch"] != self.config.batch:
            raise TrainingError(
                f"{found.folder} was made with trainer.batch={state['batch']}, and with "
                f"{self.config.batch} its place in the data would be another; keep the batch."
            )
        tensors = self.state.tensors()
        self.checkpoints.read(found, tensors)
        self.state.restore(tensors)
        self.step = self.saved = found.step
        self.best, self.measured, self.metrics = (
            state[key] for key in ("best", "measured", "metrics")
        )

    def _export(self) -> bool:
        """Writes the weights as they are now to `model/`, in the stored layout; returns whether
        that worked."""
        weights = self.state.whole_weights()
        problem = None
        if self.world.is_main:
            try:
                export(self.module, weights, self.folder / "model", self.stored)
            except (OSError, WeightsError) as error:
                problem = str(error)
                warnings.warn(f"{problem} Training goes on.", stacklevel=2)
        return self.world.broadcast(problem) is None


def move(batch: Batch, device: torch.device) -> Batch:
    """Returns the batch with its tensors on the device."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }


def _steps(config: TrainerConfig, samples: int) -> int:
    assert config.epochs is not None
    return max(1, round(config.epochs * samples / config.batch))
