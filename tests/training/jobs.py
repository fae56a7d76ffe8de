"""Runs training jobs in processes of their own, for tests: python jobs.py JOBS.json

torch is imported once and every process is forked from there, which saves seconds for each of them.
A job is {"world": processes, "config": an experiment's mapping, "kill_at": step, "signal": number,
"limit": bytes of a file}; with `kill_at` all of its processes get the signal as soon as the log has
that step. Prints [[exit code of each rank, stderr of each rank], …] as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # what any optimiser imports when it is made: 2 s
from PIL import Image

from zoo.data.digits import load_digits
from zoo.registry import resolve
from zoo.training.run import train

DEADLINE = 120.0  # seconds for a job


def main(file: str) -> None:
    """Runs the jobs one after the other."""
    Image.init()
    load_digits()
    print(json.dumps([run(job) for job in json.loads(Path(file).read_text())]))


def run(job: dict[str, Any]) -> list[Any]:
    """Returns [[exit codes], [what each process wrote to stderr]]."""
    world = job.get("world", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    says = [tempfile.TemporaryFile("w+") for _ in range(world)]  # noqa: SIM115 - read below
    pids = [fork(job, rank, world, port, says[rank].fileno()) for rank in range(world)]
    if "kill_at" in job:
        wait_for_step(Path(job["config"]["run"]["dir"]) / "metrics.jsonl", job["kill_at"], pids)
        for pid in pids:
            os.kill(pid, job.get("signal", signal.SIGKILL))
    codes = [os.waitstatus_to_exitcode(wait(pid)) for pid in pids]
    return [codes, [read(file) for file in says]]


def fork(job: dict[str, Any], rank: int, world: int, port: int, stderr: int) -> int:
    """Starts one process of a job and returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.dup2(stderr, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if world > 1:
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
            os.environ.update({k: str(v) for k, v in names.items()}, MASTER_ADDR="127.0.0.1")
        if "limit" in job:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
        torch.set_num_threads(1)
        result = train(resolve("experiment", job["config"]))
        code = 128 + result.stopped_by if result.stopped_by else 0
    except ValueError as error:  # what a user can put right
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 2
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait_for_step(log: Path, step: int, pids: list[int]) -> None:
    """Returns when the log has a line of `step` or a later one, or a process has ended."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        lines = log.read_text().splitlines()[-1:] if log.is_file() else []
        if any(line.endswith("}") and json.loads(line)["step"] >= step for line in lines):
            return
        if any(os.waitid(os.P_PID, p, os.WEXITED | os.WNOHANG | os.WNOWAIT) for p in pids):
            return
        time.sleep(0.002)


def wait(pid: int) -> int:
    """Returns the status of a process; one that takes too long is killed."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def read(file: Any) -> str:
    """Returns the text of a temporary file."""
    file.seek(0)
    return file.read()


if __name__ == "__main__":
    main(sys.argv[1])
