"""Processes of their own: one, two with DDP, two with FSDP2; killed, resumed, moved, out of disk.

All jobs run in one interpreter that forks (see jobs.py), because importing torch costs more than
training these models does.
"""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from zoo.weights.files import open_weights

STEPS = 24
LONG = {"trainer__steps": STEPS, "trainer__save_every": 3, "trainer__eval_every": 12}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Returns a function: name of a job -> (folder of its run, its exit codes, what it said).

    Every job runs once, in the first of pytest's processes that needs them; the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    file = shared / "zoo-training-jobs.json"
    with FileLock(str(file) + ".lock"):
        if not file.is_file():
            root = shared / "zoo-training-jobs"
            root.mkdir()
            file.write_text(json.dumps(run_jobs(root)))
    results = json.loads(file.read_text())
    return lambda name: (Path(results[name][0]), *results[name][1:])


def run_jobs(root):
    """Returns name -> [folder, exit codes, what it said]."""
    from tests.training.conftest import SMALL
    from zoo.registry import apply_overrides

    def job(name, world=1, folder=None, job_keys=None, **changes):
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        config = apply_overrides(SMALL, {"run.dir": str(root / (folder or name)), **dotted})
        return name, {"world": world, "config": config, **(job_keys or {})}

    fsdp = {"trainer__strategy": "fsdp2"}
    draw = random.Random()  # noqa: S311 - any step must do, so every run of this test takes others
    jobs = [
        job("one"),
        job("accumulated", trainer__accumulate=4),
        job("ddp", 2),
        job("ddp accumulated", 2, trainer__accumulate=2),
        job("fsdp", 2, **fsdp),
        job("fsdp accumulated", 2, trainer__accumulate=2, **fsdp),
        job("fsdp bf16", 2, trainer__precision="bf16", **fsdp),
        job("bf16", trainer__precision="bf16"),
    ]
    for name, world, keys in (("none", 1, {}), ("ddp", 2, {}), ("fsdp", 2, fsdp)):
        whole, killed = f"whole {name}", f"killed {name}"
        jobs.append(job(whole, world, **LONG, **keys))
        for turn in range(2 if world == 1 else 1):
            at = draw.randint(1 + turn * STEPS // 2, (turn + 1) * STEPS // 2 - 1)
            jobs.append(job(f"{killed} {turn}", world, killed, {"kill_at": at}, **LONG, **keys))
        jobs.append(job(killed, world, **LONG, **keys))
    term = {"kill_at": 5, "signal": int(signal.SIGTERM)}
    jobs += [
        job("stopped", 2, job_keys=term, **{**LONG, "trainer__save_every": None}),
        job("moved", 1, "stopped", **{**LONG, "trainer__save_every": None}, **fsdp),
        job("refused", 1, "stopped", trainer__accumulate=3, **LONG),
        job("disk", job_keys={"limit": 60_000}, **LONG),
        job("disk freed", folder="disk", **LONG),
    ]
    file = root / "jobs.json"
    file.write_text(json.dumps([content for _, content in jobs]))
    script = Path(__file__).with_name("jobs.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default::UserWarning"}
    done = subprocess.run(
        [sys.executable, str(script), str(file)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return {
        name: [content["config"]["run"]["dir"], *found]
        for (name, content), found in zip(jobs, json.loads(done.stdout), strict=True)
    }


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def numbers(folder):
    """(step, name) -> value of everything in a log that is not about time."""
    return {
        (line["step"], key): value
        for line in lines(folder)
        for key, value in line.items()
        if key not in ("step", "seconds_per_step")
    }


def finished(outcome, name):
    folder, codes, said = outcome(name)
    assert set(codes) == {0}, said
    return folder


@pytest.mark.parametrize(
    "name", ["accumulated", "ddp", "ddp accumulated", "fsdp", "fsdp accumulated"]
)
def test_losses_do_not_depend_on_the_processes(outcome, name):
    alone = numbers(finished(outcome, "one"))
    spread = numbers(finished(outcome, name))
    assert len(alone) == 8 * 4 + 2 * 3
    assert spread == pytest.approx(alone, rel=2e-5, abs=1e-6)
    for one, other in zip(*(open_weights(outcome(n)[0] / "model").values() for n in ("one", name))):
        assert (one.read() - other.read()).abs().max() < 2e-5


def test_bf16_under_fsdp2_is_close(outcome):
    sharded, alone = (numbers(finished(outcome, name)) for name in ("fsdp bf16", "bf16"))
    for step in range(1, 9):
        assert sharded[step, "loss"] == pytest.approx(alone[step, "loss"], abs=0.02)


@pytest.mark.parametrize("strategy", ["none", "ddp", "fsdp"])
def test_a_killed_run_goes_on_bit_for_bit(outcome, strategy):
    whole = finished(outcome, f"whole {strategy}")
    killed = finished(outcome, f"killed {strategy}")
    for turn in range(2 if strategy == "none" else 1):
        codes = outcome(f"killed {strategy} {turn}")[1]
        assert set(codes) == {-signal.SIGKILL}, "it was not killed before its end"
    assert numbers(killed) == numbers(whole)
    for kind in ("model", "checkpoints/step_00000024"):
        for file in (whole / kind).glob("*[s0-9a-z]"):
            if file.suffix in (".safetensors", ".distcp"):
                assert (killed / kind / file.name).read_bytes() == file.read_bytes(), file.name


def test_sigterm_saves_and_exits_with_143(outcome):
    folder, codes, said = outcome("stopped")
    assert codes == [143, 143], said
    last = (folder / "checkpoints" / "last").read_text().strip()
    assert last.startswith("step_") and not list((folder / "checkpoints").glob("*.tmp"))


def test_a_run_moves_to_another_number_of_processes_and_strategy(outcome):
    """From two processes with DDP to one with FSDP2: the same samples, so the same losses."""
    alone, moved = (numbers(finished(outcome, name)) for name in ("whole none", "moved"))
    assert {step for step, _ in moved} == {step for step, _ in alone}
    assert moved == pytest.approx(alone, rel=5e-4, abs=1e-5)


def test_a_batch_that_does_not_divide_is_refused(outcome):
    _, codes, said = outcome("refused")
    assert codes == [2]
    assert "accumulate: 16 samples do not divide into 3 micro batches" in said[0]


def test_a_full_disk_is_survived(outcome):
    """The shards of this model are 69 kB: with files of at most 60 kB no checkpoint can be
    written."""
    folder, codes, said = outcome("disk")
    assert codes == [2], said
    assert "TrainingError: The checkpoint of step 24 could not be written" in said[0]
    assert "File too large" in said[0] and "Free some space, then zoo train resume=" in said[0]
    assert said[0].count("Training goes on") >= 1 and "Traceback" not in said[0]
    freed = finished(outcome, "disk freed")
    assert freed == folder and numbers(freed) == numbers(finished(outcome, "whole none"))
