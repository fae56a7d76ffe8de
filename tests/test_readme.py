"""README's code runs: every python block, and every bash block marked `<!-- run -->`, in order, in
one folder, against a hub of our own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.hub.server import running_hub

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<kind>\w+)\n(?P<code>.*?)```", re.DOTALL
)


def blocks():
    """Returns (line, kind, code, mark) of each fenced block."""
    text = README.read_text(encoding="utf-8")
    return [
        (text[: found.start("code")].count("\n") + 1, found["kind"], found["code"], found["mark"])
        for found in BLOCK.finditer(text)
    ]


def test_what_is_not_run_says_why():
    for line, kind, _, mark in blocks():
        assert kind in ("python", "bash"), f"line {line}"
        if kind == "python":
            assert mark is None or re.match(r"not run: \w{4,}", mark), f"line {line}: {mark}"
        else:
            assert mark in (None, "run"), f"line {line}: {mark}"


def test_there_is_something_to_run():
    run = [
        kind for _, kind, _, mark in blocks() if mark == "run" or (kind, mark) == ("python", None)
    ]
    assert run.count("python") >= 3 and run.count("bash") >= 3


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """A folder to write to, the `zoo` of this environment, and a hub."""
    command = tmp_path / "bin" / "zoo"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m zoo "$@"\n')
    command.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(README.parent))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with running_hub(tmp_path / "hub") as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield work


def test_the_code_runs(environment, capfd):
    names = {"__name__": "readme"}
    for line, kind, code, mark in blocks():
        if kind == "python" and mark is None:
            exec(compile("\n" * line + code, str(README), "exec"), names)
        elif mark == "run":
            run = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True
            )
            assert run.returncode == 0, f"README.md, line {line}:\n{run.stdout}{run.stderr}"
    assert (environment / "attention.png").is_file()
    assert names["features"].shape == (8, 96)
