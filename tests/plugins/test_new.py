"""`zoo plugins new` writes a plugin that works: installed, trained with, tested, removed."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from zoo.cli.scaffold import TEMPLATE, main, write_plugin
from zoo.errors import PluginError


def test_every_file_of_the_template_is_written_under_the_new_name(tmp_path):
    folder = write_plugin("my-lab", tmp_path)
    assert folder == tmp_path / "zoo-my-lab"
    template = [p for p in TEMPLATE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    written = [p for p in folder.rglob("*") if p.is_file()]
    assert len(written) == len(template) >= 10
    assert (folder / "zoo_my_lab/conf/norm/my-lab/l1.yaml").read_text() == "kind: my-lab/l1\n"
    for file in written:
        assert "acme" not in file.read_text() + str(file.relative_to(folder))
        if file.suffix == ".py":
            compile(file.read_text(), str(file), "exec")
    assert [p.name for p in tmp_path.iterdir()] == ["zoo-my-lab"]  # nothing is left beside it


@pytest.mark.parametrize("name", ["Acme", "a b", "hf", "a/b", "", "a-", "../x", "1a"])
def test_names_that_cannot_be_a_namespace(tmp_path, name):
    with pytest.raises(PluginError, match="is no namespace: take a lower-case word"):
        write_plugin(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "zoo-acme").mkdir()
    with pytest.raises(PluginError) as error:
        write_plugin("acme", tmp_path)
    assert (
        str(error.value)
        == f"{tmp_path / 'zoo-acme'} is there already; take another name or folder."
    )


def test_a_name_that_is_installed(tmp_path, acme):
    with pytest.raises(PluginError) as error:
        write_plugin("acme", tmp_path)
    assert str(error.value) == (
        "A plugin 'acme' is installed already (zoo-acme 0.1); take another name."
    )


def test_it_says_what_comes_next(tmp_path, capsys):
    assert main(["shapes", "--dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"pip install -e {tmp_path / 'zoo-shapes'}" in said
    assert "zoo train model=shapes/tiny data=shapes/squares" in said


@pytest.fixture
def scratch(tmp_path):
    """A virtual environment that sees the packages of this one; run(*words) runs its Python."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    here = sysconfig.get_path("purelib")
    inside = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    (inside / "parent.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    python = tmp_path / "venv/bin/python"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ZOO_", "PYTEST_"))}
    environment |= {"OMP_NUM_THREADS": "1", "ZOO_PLUGINS": "acme", "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*words, check=True):
        done = subprocess.run(
            [str(python), *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def pip(action, *words):
        uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
        command = (
            [uv, "pip", action, "--python", str(python)]
            if uv
            else [sys.executable, "-m", "pip", "--python", str(python), action]
        )
        quiet = ["-q", *(["-y"] if action == "uninstall" and not uv else [])]
        subprocess.run([*command, *quiet, *words], check=True, env=environment)

    run.pip = pip
    return run


ONE_STEP = (
    "model=vit-digits",
    "model.backbone={depth: 1, width: 16, attention: {heads: 1}, norm: acme/l1}",
    "model.tokenizer={image: [16, 16]}",
    "model.classes=2",
    "model.labels=[hollow, filled]",
    "data=acme/squares",
    "data.count=8",
    "trainer={steps: 1, batch: 4, log_every: 1}",
)


def test_from_nothing_to_trained_to_gone(scratch, tmp_path):
    scratch("-m", "zoo", "plugins", "new", "acme")
    folder = tmp_path / "zoo-acme"
    scratch.pip("install", "--no-deps", "--no-build-isolation", str(folder))

    (plugin,) = json.loads(scratch("-m", "zoo", "plugins", "--json").stdout)
    assert (plugin["state"], plugin["distribution"]) == ("ok", "zoo-acme 0.1.0")
    assert plugin["adds"] == {"model": 1, "norm": 1, "data": 1}
    assert "venv" in plugin["location"]  # what is installed, not what was written

    trained = scratch("-m", "zoo", "train", *ONE_STEP)
    assert "step 1/1" in trained.stdout
    record = next(tmp_path.rglob("config.json"))
    assert json.loads(record.read_text())["config"]["backbone"]["norm"]["kind"] == "acme/l1"

    tested = scratch("-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder), check=False)
    assert tested.returncode == 0, tested.stdout
    assert "3 passed" in tested.stdout

    scratch.pip("uninstall", "zoo-acme")
    assert json.loads(scratch("-m", "zoo", "plugins", "--json").stdout) == []
    gone = scratch("-m", "zoo", "info", "acme/tiny", check=False)
    assert gone.returncode == 2 and gone.stderr.startswith(
        "zoo: Unknown model 'acme/tiny': no plugin 'acme' is installed."
    )
