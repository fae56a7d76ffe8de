"""`zoo train`, `zoo sweep` and `zoo eval`: one Hydra app each, on the folder that holds all names.

Choices and values, `+`, `++` and `~`, `-m` and launchers, `--cfg`, `--info`, `--help` and shell
completion are Hydra's; `zoo sweep` is `zoo train -m` with a summary, and `zoo eval` takes a name.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.cli.hydra_app import SHOWS, quote, run_app
from zoo.errors import ConfigError, ZooError

__all__ = ["main"]

FAILED = "error.txt"  # beside a job of a sweep that could not run


def main(argv: Sequence[str]) -> int:
    """Runs `[command, *words]` and returns the exit code; raises ZooError for what the user can
    put right."""
    command, *words = argv
    if command == "eval":
        return _evaluate(words)
    if command == "sweep":
        words = _sweep_words(words)
    return _train(words)


# -- zoo train, zoo sweep --------------------------------------------------------------------------


def _train(words: list[str]) -> int:
    sweeps = bool({"-m", "--multirun"} & set(words))
    sweep_dir = None
    if sweeps:
        sweep_dir = _sweep_dir(words)
        words = [*(w for w in words if not w.startswith("hydra.sweep.dir=")), _set_dir(sweep_dir)]
    codes: list[int] = []

    def task(cfg: Any) -> None:
        codes.append(_train_one(cfg))

    try:
        run_app("train", words, _train_job if sweeps else task)
    except ZooError:
        if sweep_dir is not None and [p.name for p in sweep_dir.glob("*")] == ["multirun.yaml"]:
            shutil.rmtree(sweep_dir)  # refused before any job ran
        raise
    if sweep_dir is not None and sweep_dir.is_dir() and os.environ.get("RANK", "0") == "0":
        return _summarise(sweep_dir)
    return max(codes, default=0)


def _train_one(cfg: Any, **keys: Any) -> int:
    """Trains what a composed configuration says; returns the exit code."""
    import dataclasses

    from hydra.core.hydra_config import HydraConfig

    from zoo.training.compose import typed

    config = typed(cfg)
    if config.zoo_kind != "train":
        raise ConfigError(f"kind: zoo train runs experiments of kind train, not {config.zoo_kind}.")
    if keys:
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, **keys))
    from zoo.training.run import train

    result = train(config, list(HydraConfig.get().overrides.task))
    if result.stopped_by:
        _say(f"stopped at step {result.step}; zoo train resume={result.folder} goes on")
        return 128 + result.stopped_by
    _say(f"{result.folder}  " + "  ".join(f"{k} {v:.4g}" for k, v in result.metrics.items()))
    return 0


def _train_job(cfg: Any) -> None:
    """Trains one job of a sweep in its own folder; what goes wrong is left there, and the other
    jobs run."""
    from hydra.core.hydra_config import HydraConfig

    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    try:
        code = _train_one(cfg, dir=str(folder))
    except ZooError as error:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAILED).write_text(f"{error}\n")
        _say(str(error), sys.stderr)
        return
    if code:
        raise SystemExit(code)  # a signal ends the sweep too


def _sweep_words(words: list[str]) -> list[str]:
    """`zoo sweep --jobs N …` is `zoo train -m …` with N jobs at a time."""
    words = list(words)
    jobs = None
    for index, word in enumerate(words):
        if word == "--jobs" or word.startswith("--jobs="):
            inline = word.partition("=")[2]
            jobs = inline or "".join(words[index + 1 : index + 2])
            del words[index : index + (1 if inline else 2)]
            break
    if jobs is not None:
        if not jobs.isdecimal() or int(jobs) < 1:
            raise ConfigError(f"--jobs takes how many jobs run at a time, got {jobs!r}.")
        from importlib.util import find_spec

        if find_spec("hydra_plugins.hydra_joblib_launcher") is None:
            raise ConfigError(
                "--jobs needs Hydra's joblib launcher: pip install 'multimodal-zoo[train]'."
            )
        words += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}"]
    return words if {*SHOWS, "--cfg", "-c", "-m", "--multirun"} & set(words) else ["-m", *words]


def _sweep_dir(words: list[str]) -> Path:
    given = [w.partition("=")[2] for w in words if w.startswith("hydra.sweep.dir=")]
    if given:
        return Path(given[-1])
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError(
            "hydra.sweep.dir: the processes of a sweep need the same folder, as in "
            "hydra.sweep.dir=runs/grid."
        )
    return Path("runs") / time.strftime("sweep-%Y-%m-%d_%H-%M-%S")


def _set_dir(folder: Path) -> str:
    return f"hydra.sweep.dir={quote(str(folder))}"


def _summarise(folder: Path) -> int:
    """Prints a line for each job of a sweep, and writes them to summary.json; returns 2 if any
    failed."""
    from zoo.cli.output import print_table
    from zoo.training.record import RESULT

    rows, failed = [], 0
    jobs = [path for path in folder.iterdir() if path.name.isdecimal()]
    for job in sorted(jobs, key=lambda path: int(path.name)):
        if (job / RESULT).is_file():
            result = json.loads((job / RESULT).read_text())
            rows.append({"run": str(job), "overrides": result["overrides"], **result["metrics"]})
        else:
            failed += 1
            reason = (job / FAILED).read_text().strip() if (job / FAILED).is_file() else "no result"
            rows.append({"run": str(job), "overrides": [], "error": reason})
    shared = set.intersection(*(set(row["overrides"]) for row in rows)) if rows[1:] else set()
    (folder / "summary.json").write_text(json.dumps(rows, indent=2) + "\n")
    keys = list(dict.fromkeys(k for row in rows for k in row if k not in ("run", "overrides")))
    cells = [
        [
            row["run"],
            " ".join(word for word in row["overrides"] if word not in shared),
            *(_cell(row.get(key, "")) for key in keys),
        ]
        for row in rows
    ]
    print_table(["run", "overrides", *keys], cells, right=keys)
    return 2 if failed else 0


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# -- zoo eval --------------------------------------------------------------------------------------


def _evaluate(words: list[str]) -> int:
    as_json = "--json" in words
    words = [word for word in words if word != "--json"]
    takers = ("--cfg", "-c", "--package", "-p", "--info", "-i")  # flags with a word of their own
    for index, word in enumerate(words):  # zoo eval runs/7: the one word that is no key=value
        is_name = not word.startswith(("-", "+", "~")) and "=" not in word
        if is_name and (index == 0 or words[index - 1] not in takers):
            words[index] = f"of={quote(word)}"

    def task(cfg: Any) -> None:
        from zoo.training.compose import typed

        config = typed(cfg)
        from zoo.training.run import evaluate

        metrics = evaluate(config)
        if as_json:
            print(json.dumps({"of": config.of, **metrics}, indent=2))
        else:
            print("\n".join(f"{name} {value:.4g}" for name, value in metrics.items()))

    run_app("eval", words, task)
    return 0


def _say(text: str, stream: Any = None) -> None:
    """Prints a line, in the main process of several only."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=stream or sys.stdout, flush=True)
