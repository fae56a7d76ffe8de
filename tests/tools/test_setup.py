"""tools/setup.sh: what it says before it does anything, and that it does nothing needlessly."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INPUTS = ("pyproject.toml", "setup.py", "constraints.txt", "tools/setup.sh", "tools/references.txt")

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def checkout(tmp_path):
    """The files that the set-up reads, alone in a folder."""
    for name in INPUTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


def setup(checkout, **environment):
    return subprocess.run(
        ["bash", checkout / "tools" / "setup.sh"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(checkout), **environment},
        timeout=60,
    )


def stamped(checkout):
    """A virtual environment as a finished set-up leaves it: this one, reached by a link."""
    venv = checkout / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (venv / "bin" / "python").chmod(0o755)
    files = [*INPUTS, *sorted(str(p.relative_to(checkout)) for p in checkout.glob("plugins/*/*"))]
    lines = [f"{hashlib.sha256((checkout / f).read_bytes()).hexdigest()}  {f}" for f in files]
    (venv / ".installed").write_text("\n".join(lines) + "\n")
    return venv


def test_a_current_environment_is_left_alone(checkout):
    venv = stamped(checkout)
    before = sorted(venv.rglob("*"))
    run = setup(checkout)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert sorted(venv.rglob("*")) == before


@pytest.mark.parametrize(
    "change", ["constraints.txt", "pyproject.toml", "plugins/x/pyproject.toml"]
)
def test_what_it_depends_on_makes_it_stale(checkout, change, tmp_path):
    venv = stamped(checkout)
    (checkout / change).parent.mkdir(parents=True, exist_ok=True)
    with open(checkout / change, "a") as file:
        file.write("\n# changed\n")
    (venv / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")  # so that nothing is installed
    run = setup(checkout)
    assert run.returncode == 1 and "does not run or is older than 3.10; remove .venv" in run.stderr


def test_python_must_be_there(checkout):
    run = setup(checkout, PYTHON="/nowhere/python")
    assert run.returncode == 1
    assert "Python 3.10 or newer is needed and /nowhere/python is not" in run.stderr


def fake_python(checkout, body):
    python = checkout / "python"
    python.write_text(f"#!/bin/sh\n{body}\n")
    python.chmod(0o755)
    return str(python)


def test_python_must_be_new_enough(checkout):
    run = setup(checkout, PYTHON=fake_python(checkout, "exit 1"))
    assert run.returncode == 1 and "Python 3.10 or newer is needed" in run.stderr


def test_says_what_it_downloads_before_it_does_and_how_to_get_venv(checkout):
    python = fake_python(checkout, 'case "$2" in *ensurepip*) exit 1;; *) exit 0;; esac')
    run = setup(checkout, PYTHON=python, PATH="/usr/bin:/bin")
    assert run.returncode == 1
    assert "downloads several GB" in run.stderr and str(checkout / ".venv") in run.stderr
    assert "sudo apt-get install python3-venv" in run.stderr


def test_a_full_disk_is_noticed_first(checkout):
    tools = checkout / "bin"
    tools.mkdir()
    (tools / "df").write_text('#!/bin/sh\necho header\necho "$2" >&2\necho / 9 9 1048576 99% /\n')
    (tools / "df").chmod(0o755)
    venv = checkout / "other" / "venv"
    run = setup(checkout, PATH=f"{tools}:{os.environ['PATH']}", VENV=str(venv))
    assert run.returncode == 1
    assert f"1 GB are free for {venv} and 9 GB are needed" in run.stderr
    assert f"{venv.parent}\n" in run.stderr and not venv.exists()  # that disk was asked


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_explains_itself():
    run = subprocess.run(["make", "-C", ROOT], capture_output=True, text=True)
    targets = ("setup", "demo", "test", "lint", "types", "cards", "reproduce", "bench", "clean")
    for target in targets:
        assert f"make {target} " in run.stdout
