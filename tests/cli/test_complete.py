"""Completion: what the shell is offered."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from zoo.cli.complete import SCRIPTS, complete
from zoo.cli.front import command_names


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("zoo ", command_names()),
        ("zoo li", ["list"]),
        ("zoo info vit-dig", ["vit-digits"]),
        ("zoo list ke", ["kernel"]),
        ("zoo list --j", ["--json"]),
        ("zoo info --group posi", ["position"]),
        ("zoo info --json vit-dig", ["vit-digits"]),
        ("zoo hub ", ["serve"]),
        ("zoo hub serve --ro", ["--root"]),
        ("zoo completion z", ["zsh"]),
        ("zoo train mod", ["model="]),
        (
            "zoo sweep model.backbone.attention.kernel=pla",
            ["model.backbone.attention.kernel=plain"],
        ),
        ("zoo train seed=1 kernel=pla", ["kernel=plain"]),
        ("zoo classify vit-digits ", []),  # files: the shell knows them
        ("zoo completion zsh ", []),
        ("zoo nonsense ", []),
        ("zoo", []),
    ],
)
def test_candidates(line, offered):
    assert complete(line) == offered


def test_names_are_offered_where_a_name_is_meant():
    for command in ("info", "cfg", "classify", "pull", "verify", "export", "create"):
        assert complete(f"zoo {command} ") == zoo.list(), command


def test_the_command_prints_the_scripts(zoo_command):
    for shell in ("bash", "zsh"):
        assert zoo_command("completion", shell) == (0, SCRIPTS[shell], "")
    assert zoo_command("completion", "fish")[0] == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("zoo lis", ["list"]),
        ("zoo info vit-dig", ["vit-digits"]),
        # bash has split the word at `=`: only what follows it is replaced
        ("zoo train kernel=pla", ["plain"]),
    ],
)
def test_bash_script(line, replies, tmp_path):
    command = tmp_path / "zoo"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m zoo "$@"\n')
    command.chmod(0o755)
    script = (
        f'{SCRIPTS["bash"]}\ncompopt() {{ :; }}\nCOMP_LINE="{line}" COMP_POINT={len(line)}\n_zoo\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    run = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(Path(zoo.__file__).parents[1])},
    )
    assert run.stdout.split() == replies, run.stderr
