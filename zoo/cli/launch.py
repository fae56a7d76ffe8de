"""`zoo launch`: one experiment on several processes or machines.

    zoo launch torchrun --procs 2 experiment=digits_vit
    zoo launch torchrun --nodes 2 --host node1 experiment=x run.dir=/shared/runs/a   on each of them
    zoo launch slurm --nodes 2 --procs 4 --gpus 4 --minutes 600 experiment=digits_vit
    zoo launch slurm … --dry-run        prints what would run; the script works with sbatch alone

The engine is torchrun. A launched run has a fixed folder, so that a restart of a process, or of the
whole job, goes on from the newest checkpoint. The folder must be on a disk that all machines share.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zoo.cli.front import Parser
from zoo.errors import ConfigError

__all__ = ["Job", "main"]


@dataclass(frozen=True)
class Job:
    """What runs: `zoo train WORDS` in `procs` processes on each of `nodes` machines."""

    words: tuple[str, ...]
    nodes: int = 1
    procs: int = 1
    restarts: int = 3
    host: str | None = None  # the machine where all meet; None on a single one
    port: int = 29400

    def command(self) -> list[str]:
        """Returns the command line of one machine."""
        meeting = ["--standalone"]
        if self.nodes > 1:
            meeting = ["--nnodes", str(self.nodes), "--rdzv-backend", "c10d"]
            meeting += ["--rdzv-endpoint", f"{self.host}:{self.port}", "--rdzv-id", self.name()]
        counts = ["--nproc-per-node", str(self.procs), "--max-restarts", str(self.restarts)]
        torchrun = [sys.executable, "-m", "torch.distributed.run", *meeting, *counts]
        return [*torchrun, "-m", "zoo", "train", *self.words]

    def name(self) -> str:
        """Returns what all machines of a run call it: the same for the same folder."""
        return "zoo-" + "".join(c if c.isalnum() else "-" for c in self.folder())

    def folder(self) -> str:
        """Returns the folder of the run."""
        given = [w.partition("=")[2] for w in self.words if w.startswith(("run.dir=", "resume="))]
        return given[-1]


def main(argv: Sequence[str]) -> int:
    """Runs `zoo launch WORDS` and returns the exit code; raises ConfigError."""
    parser = _parser()
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        return 0
    try:
        args = parser.read(list(argv))
    except SystemExit as done:
        return int(done.code or 0)
    job = _job(args)
    if args.engine == "slurm":
        return _slurm(args, job)
    if args.dry_run:
        print(shlex.join(job.command()))
        return 0
    return subprocess.call(job.command())


def _parser() -> Parser:

    parser = Parser(
        prog="zoo launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("engine", choices=["torchrun", "slurm"], help="what starts the processes")
    add("words", nargs="*", metavar="WORD", help="of zoo train: experiment=… key=value")
    add("--nodes", type=int, default=1, help="machines (default 1)")
    add("--procs", type=int, default=1, help="processes on each, one for each GPU (default 1)")
    add("--restarts", type=int, default=3, help="how often a broken run starts again (default 3)")
    add("--host", help="torchrun on several machines: the name of one of them, where all meet")
    add("--port", type=int, default=29400, help="and the port there (default 29400)")
    add("--gpus", type=int, default=0, help="slurm: GPUs of each machine (default 0)")
    add("--cpus", type=int, default=8, help="slurm: cores of each machine (default 8)")
    add("--minutes", type=int, default=60, help="slurm: longest time (default 60)")
    add("--partition", help="slurm: where")
    add("--cluster", choices=["slurm", "local", "debug"], default="slurm", help=argparse.SUPPRESS)
    add("--dry-run", action="store_true", help="print what would run")
    return parser


def _job(args: argparse.Namespace) -> Job:
    """Returns the job of a command line, its experiment checked before anything starts."""
    for name in ("nodes", "procs"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {getattr(args, name)}.")
    words = tuple(word for word in args.words if word != "train")
    _check_experiment(words)
    if not any(word.startswith(("run.dir=", "resume=")) for word in words):
        if args.engine == "torchrun" and args.nodes > 1:
            raise ConfigError(
                "run.dir: several machines need the same folder on a shared disk, as in "
                "run.dir=/shared/runs/a."
            )
        words = (*words, f"run.dir=runs/{time.strftime('%Y-%m-%d_%H-%M-%S')}")
    if args.engine == "torchrun" and args.nodes > 1 and args.host is None:
        raise ConfigError("--host: say on which of the machines all meet, as in --host node1.")
    return Job(words, args.nodes, args.procs, args.restarts, args.host, args.port)


def _check_experiment(words: Sequence[str]) -> None:
    """Composes and validates what would run; raises what `zoo train` would raise."""
    from zoo.cli.train import main as train

    with contextlib.redirect_stdout(io.StringIO()):
        train(["train", *words, "--cfg", "job"])


# -- Slurm -----------------------------------------------------------------------------------------


def _slurm(args: argparse.Namespace, job: Job) -> int:
    if args.dry_run:
        print(sbatch_script(args, job), end="")
        return 0
    if find_spec("submitit") is None:
        raise ConfigError(
            "zoo launch slurm submits through submitit: pip install 'multimodal-zoo[slurm]', or "
            "print a script for sbatch by --dry-run."
        )
    import submitit

    logs = Path(job.folder()) / "slurm"
    executor = submitit.AutoExecutor(folder=logs, cluster=args.cluster)
    executor.update_parameters(
        name=job.name(),
        nodes=args.nodes,
        tasks_per_node=1,
        gpus_per_node=args.gpus,
        cpus_per_task=args.cpus,
        timeout_min=args.minutes,
        **({"slurm_partition": args.partition} if args.partition else {}),
    )
    submitted = executor.submit(SlurmTask(job))
    print(f"job {submitted.job_id}  run {job.folder()}  logs {logs}")
    if args.cluster == "debug":
        return int(submitted.result())
    return 0


class SlurmTask:
    """What submitit runs on every machine of a job: torchrun, and, when Slurm takes the machine
    away, a checkpoint and the same job once more."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.process: subprocess.Popen | None = None

    def __call__(self) -> int:
        import submitit

        host = submitit.JobEnvironment().hostnames[0]
        self.process = subprocess.Popen(replace(self.job, host=host).command())
        return self.process.wait()

    def checkpoint(self) -> Any:
        """Called by submitit on preemption and shortly before the time is over."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.process.terminate()  # the run saves and exits with 143
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
        return DelayedSubmission(SlurmTask(self.job))


def sbatch_script(args: argparse.Namespace, job: Job) -> str:
    """Returns a script that does the same by sbatch alone."""
    settings = {
        "job-name": job.name(),
        "nodes": args.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": args.cpus,
        "gpus-per-node": args.gpus or None,
        "time": args.minutes,
        "partition": args.partition,
        "open-mode": "append",
        "signal": "TERM@90",  # so that the run saves before its time is over
    }
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH --{key}={value}" for key, value in settings.items() if value is not None]
    lines += ["#SBATCH --requeue"]
    lines += ['HOST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)']
    command = replace(job, host="$HOST").command()
    text = shlex.join(command).replace(f"'$HOST:{job.port}'", f'"$HOST:{job.port}"')
    return "\n".join([*lines, f"srun {text}", ""])
