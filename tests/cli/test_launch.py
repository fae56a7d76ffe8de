"""zoo launch: the commands that would run, and submitting through submitit."""

import pytest

from zoo.cli import launch, main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def said(capsys, *words, code=0):
    assert main(["launch", *words]) == code
    found = capsys.readouterr()
    return found.out if code == 0 else found.err


def test_one_machine(capsys):
    words = ["--procs", "2", "experiment=digits_vit", "run.dir=runs/a b", "--dry-run"]
    command = said(capsys, "torchrun", *words)
    assert "-m torch.distributed.run --standalone --nproc-per-node 2 --max-restarts 3" in command
    assert command.endswith("-m zoo train experiment=digits_vit 'run.dir=runs/a b'\n")


def test_a_run_gets_a_fixed_folder_so_that_restarts_find_it(capsys):
    command = said(capsys, "torchrun", "experiment=digits_vit", "--dry-run")
    assert "run.dir=runs/20" in command
    assert command.count("run.dir") == 1


def test_several_machines_meet(capsys):
    words = ["--nodes", "2", "--host", "node1", "experiment=digits_vit", "run.dir=/shared/a"]
    command = said(capsys, "torchrun", *words, "--dry-run")
    assert "--nnodes 2 --rdzv-backend c10d --rdzv-endpoint node1:29400" in command
    assert "--rdzv-id zoo--shared-a" in command
    assert "--host: say on which" in said(
        capsys, "torchrun", *words[:2], *words[4:], "--dry-run", code=2
    )
    assert "run.dir: several machines need the same folder" in said(
        capsys, "torchrun", *words[:5], code=2
    )


def test_a_script_for_slurm(capsys):
    words = ["--nodes", "2", "--procs", "4", "--gpus", "4", "--minutes", "90", "--partition", "big"]
    script = said(capsys, "slurm", *words, "experiment=digits_vit", "run.dir=r", "--dry-run")
    for line in ("nodes=2", "gpus-per-node=4", "time=90", "partition=big", "signal=TERM@90"):
        assert f"#SBATCH --{line}\n" in script
    assert '--rdzv-endpoint "$HOST:29400"' in script and script.startswith("#!/bin/bash\n")
    assert script.endswith("-m zoo train experiment=digits_vit run.dir=r\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["torchrun", "experiment=digits_vti"], "Did you mean 'digits_vit'"),
        (["torchrun", "experiment=digits_vit", "optim.lrr=1"], "Did you mean 'lr'"),
        (["torchrun", "--procs", "0", "experiment=digits_vit"], "--procs must be at least 1"),
        (["torchrun", "--proc", "2", "experiment=digits_vit"], "Did you mean '--procs'"),
        (["rocket"], "invalid choice: 'rocket'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(capsys, monkeypatch, words, sentence):
    monkeypatch.setattr(launch.subprocess, "call", lambda command: pytest.fail("it started"))
    error = said(capsys, *words, code=2)
    assert sentence in error and error.count("\n") == 1


def test_torchrun_is_called_and_its_exit_code_returned(monkeypatch):
    calls = []
    monkeypatch.setattr(launch.subprocess, "call", lambda command: calls.append(command) or 143)
    assert main(["launch", "torchrun", "experiment=digits_vit", "run.dir=r"]) == 143
    assert calls[0][-3:] == ["train", "experiment=digits_vit", "run.dir=r"]


def test_slurm_submits_through_submitit(capsys, monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    calls = []

    class Process:
        def __init__(self, command):
            calls.append(command)

        def wait(self, timeout=None):
            return 0

        def terminate(self):
            calls.append("terminated")

    monkeypatch.setattr(launch.subprocess, "Popen", Process)
    words = ["experiment=digits_vit", "run.dir=runs/s", "--nodes", "2", "--procs", "2"]
    text = said(capsys, "slurm", *words, "--cluster", "debug")
    assert "run runs/s" in text and (tmp_path / "runs" / "s" / "slurm").is_dir()
    assert "--nnodes" in calls[0] and any(":29400" in word for word in calls[0])

    task = launch.SlurmTask(launch.Job(("run.dir=runs/s",)))
    task.process = Process("x")
    again = task.checkpoint()
    assert calls[-1] == "terminated"  # the run saves; the same job goes into the queue once more
    assert again.function.job == task.job and again.function.process is None
