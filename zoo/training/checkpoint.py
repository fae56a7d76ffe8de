"""Checkpoints that survive: written beside, checked, renamed; the newest whole one is what a run
goes on from.

    RUN/checkpoints/step_00000200/      DCP shards (a file per process), state.json, manifest.json
    RUN/checkpoints/step_00000300.tmp/  one that was being written when something ended the process
    RUN/checkpoints/last                the name of the newest

The shards are torch.distributed.checkpoint's: they load into any number of processes and any
strategy. Their metadata is a pickle, so go on only from runs that you trust; a run's `model/`
folder holds none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from zoo.errors import TrainingError
from zoo.training.distributed import World

__all__ = ["Checkpoints", "SaveFailed"]

FORMAT = 1
MANIFEST, STATE, LAST = "manifest.json", "state.json", "last"
_NAME = re.compile(r"step_(\d+)")


class SaveFailed(TrainingError):
    """A checkpoint that could not be written; the older ones are as they were."""


@dataclass
class Found:
    """A checkpoint on disk: its step and folder."""

    step: int
    folder: Path


class Checkpoints:
    """The checkpoints of a run. Every method is called by all processes together."""

    def __init__(self, folder: Path, world: World, keep: int = 2) -> None:
        self.folder, self.world, self.keep = folder, world, keep

    # -- writing -----------------------------------------------------------------------------------

    def save(self, step: int, tensors: dict[str, Any], state: dict[str, Any]) -> Path:
        """Writes a checkpoint and returns its folder; raises SaveFailed, in every process, when
        any could not write.

        Args:
            tensors: nested dicts of tensors, sharded ones included, as DCP takes them.
            state: plain data that fits JSON, equal in every process.
        """
        final = self.folder / f"step_{step:08d}"
        temporary = final.with_name(final.name + ".tmp")
        problem, files = self._write(temporary, tensors)
        outcomes = self.world.gather((problem, files))
        problems = [problem for problem, _ in outcomes if problem]
        if not problems and self.world.is_main:
            manifest = {name: entry for _, files in outcomes for name, entry in files.items()}
            problem = self._finish(temporary, final, manifest, {"step": step, **state})
            problems = [problem] if problem else []
        problems = self.world.broadcast(problems)
        if problems:
            if self.world.is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            intact = self._newest()
            kept = (
                f"the one of step {intact.step} is intact" if intact else "there is none before it"
            )
            raise SaveFailed(
                f"The checkpoint of step {step} could not be written to {self.folder} "
                f"({problems[0]}); {kept}."
            )
        return final

    def _write(self, temporary: Path, tensors: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Returns (what went wrong, this process's files with their sizes and checksums)."""
        problem = None
        if self.world.is_main:
            try:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
            except OSError as error:
                problem = _reason(error)
        problem = self.world.broadcast(problem)
        if problem:  # nobody enters a collective that somebody will not come to
            return problem, {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # DCP warns that one process has no group
                dcp.save(tensors, checkpoint_id=temporary, no_dist=self.world.size == 1)
            own = [p for p in temporary.iterdir() if self._is_mine(p)]
            return None, {path.name: fingerprint(path) for path in own}
        except (Exception, CheckpointException) as error:  # DCP's own is no Exception
            return _reason(error), {}

    def _is_mine(self, path: Path) -> bool:
        mine = path.name.startswith(f"__{self.world.rank}_")
        return mine or (self.world.is_main and not path.name.startswith("__"))

    def _finish(
        self, temporary: Path, final: Path, manifest: dict[str, Any], state: dict[str, Any]
    ) -> str | None:
        try:
            _write_text(temporary / STATE, json.dumps({"format": FORMAT, **state}, indent=2))
            manifest[STATE] = fingerprint(temporary / STATE)
            _write_text(temporary / MANIFEST, json.dumps(manifest, indent=2))
            shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
            temporary.rename(final)
            _sync_folder(self.folder)
            pointer = self.folder / f".{LAST}.tmp"
            _write_text(pointer, final.name + "\n")
            pointer.replace(self.folder / LAST)
        except OSError as error:
            return _reason(error)
        for old in self.found()[self.keep :]:
            shutil.rmtree(old.folder, ignore_errors=True)
        return None

    # -- reading -----------------------------------------------------------------------------------

    def found(self) -> list[Found]:
        """Returns the finished checkpoints, newest first."""
        if not self.folder.is_dir():
            return []
        names = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        found = [Found(int(match[1]), path) for match, path in names if match]
        return sorted(found, key=lambda one: -one.step)

    def _newest(self) -> Found | None:
        return next(iter(self.found()), None)

    def newest_whole(self) -> tuple[Found, dict[str, Any]] | None:
        """Returns the newest checkpoint whose files are what was written, and its state; None
        when there is none.

        A damaged one is passed over with a warning. Raises TrainingError when all of them are
        damaged.
        """
        candidates = self.world.broadcast(self.found())
        damaged: list[tuple[Path, str]] = []
        for one in candidates:
            problems = [p for p in self.world.gather(self._check(one.folder)) if p]
            if not problems:
                for folder, problem in damaged:
                    if self.world.is_main:
                        warnings.warn(
                            f"{folder} is damaged ({problem}); going on from step {one.step}.",
                            stacklevel=2,
                        )
                return one, json.loads((one.folder / STATE).read_text())
            damaged.append((one.folder, problems[0]))
        if damaged:
            folder, problem = damaged[0]
            raise TrainingError(
                f"No checkpoint in {self.folder} is whole ({folder.name}: {problem}); "
                "start a new run."
            )
        return None

    def _check(self, folder: Path) -> str | None:
        """Returns what is wrong with this process's share of the files of a checkpoint."""
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            for name in sorted(manifest)[self.world.rank :: self.world.size]:
                if fingerprint(folder / name) != manifest[name]:
                    return f"{name} is not what was written"
        except (OSError, ValueError, TypeError, AttributeError) as error:
            return _reason(error)
        return None

    def read(self, found: Found, tensors: dict[str, Any]) -> None:
        """Fills `tensors` (of the same structure as at `save`) in place; raises TrainingError
        when they do not fit."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dcp.load(tensors, checkpoint_id=found.folder, no_dist=self.world.size == 1)
        except (Exception, CheckpointException) as error:
            raise TrainingError(
                f"{found.folder} does not fit this model and optimiser ({_reason(error)}); go on "
                "with the run's own configuration, or start a new run."
            ) from error


def fingerprint(path: Path) -> list[int]:
    """Returns [size, crc32] of a file."""
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            checksum = zlib.crc32(piece, checksum)
    return [path.stat().st_size, checksum]


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: BaseException) -> str:
    """Returns one line for what DCP or the operating system raised; DCP hides the cause by rank
    inside."""
    failures = getattr(error, "failures", None)
    if failures:
        error = next(iter(failures.values()))[0]
    for cause in (error, error.__cause__, error.__context__):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
