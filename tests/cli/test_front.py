"""The front: dispatch, errors as one line, exit codes, help."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zoo.cli import front
from zoo.cli.front import command_names, load_command, main
from zoo.errors import ConfigError


def test_every_file_is_a_command_with_a_line_of_help(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    for name in command_names():
        module = load_command(name)
        assert f"\n  {name} " in text
        assert getattr(module, "SECTION", "Use") in front.SECTIONS
        raw, parsed = hasattr(module, "run_raw"), hasattr(module, "add_arguments")
        assert raw != parsed and (raw or hasattr(module, "run")), name
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help_has_many_names(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("usage: zoo COMMAND")


def test_help_of_a_command(capsys):
    assert main(["help", "info"]) == 0
    first = capsys.readouterr().out
    assert main(["info", "--help"]) == 0
    assert capsys.readouterr().out == first and "zoo info vit-base-16" in first


def test_version(capsys):
    import zoo

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"zoo {zoo.__version__}\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lst", "Unknown command 'lst'. Did you mean 'list'?"),
        ("list nrom", "Unknown group 'nrom'. Did you mean 'norm'?"),
        ("info vit-base-61", "Unknown model 'vit-base-61'. Did you mean 'vit-base-16'?"),
        ("info rop", "Unknown name 'rop'. Did you mean 'rope'?"),
        ("cfg position rope fractoin=1", "Did you mean 'fraction'?"),
        ("list --jsno", "does not understand '--jsno'. Did you mean '--json'?"),
        ("hub srv", "invalid choice: 'srv'"),
        ("push here", "arguments are required: repo"),
        ("list norm '*' extra", "does not understand 'extra'"),
    ],
)
def test_errors_are_one_line_and_exit_2(line, said, capsys):
    assert main(line.replace("'", "").split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("zoo: ") and err.count("\n") == 1
    assert said in err


def test_debug_shows_where_an_error_came_from(monkeypatch):
    monkeypatch.setenv("ZOO_DEBUG", "1")
    with pytest.raises(ConfigError):
        main(["info", "vit-digits", "depth=3"])


def test_a_missing_file_is_one_line(monkeypatch, capsys):
    def lost(args):
        Path("/nowhere/at/all").read_text()

    monkeypatch.setattr(load_command("list"), "run", lost)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "zoo: No such file or directory: /nowhere/at/all\n"


def test_bugs_keep_their_traceback(monkeypatch):
    def bug(args):
        raise RuntimeError("a bug")

    monkeypatch.setattr(load_command("list"), "run", bug)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["list"])


def test_options_may_stand_between_positional_words(zoo_json, zoo_command):
    code, out, _ = zoo_command("cfg", "vit-digits", "--json", "backbone.depth=2")
    assert code == 0 and '"depth": 2' in out


def test_words_of_training_commands_stay_untouched(monkeypatch, capsys):
    import types

    seen = []
    for name, module in (("train", "zoo.cli.train"), ("launch", "zoo.cli.launch")):
        stand_in = types.SimpleNamespace(main=lambda words, name=name: seen.append((name, words)))
        monkeypatch.setitem(sys.modules, module, stand_in)
    words = ["-m", "--cfg", "job", "+a=1", "~b", "--help", "model=x,y"]
    for command in ("train", "eval", "sweep", "launch"):
        assert main([command, *words]) == 0
    assert seen == [
        ("train", ["train", *words]),
        ("train", ["eval", *words]),
        ("train", ["sweep", *words]),
        ("launch", words),
    ]


def test_old_names_warn_in_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "aliases.yaml").write_text("position: {rotary: rope}")
    monkeypatch.setenv("ZOO_CONF_PATH", str(tmp_path))
    assert main(["cfg", "position", "rotary"]) == 0
    assert capsys.readouterr().err == "zoo: position 'rotary' is now called 'rope'.\n"


def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-c", _ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert process.wait(20) == front.BROKEN_PIPE
    assert process.stderr.read() == b""


_ENDLESS = """
import itertools, sys
from zoo.cli import main
from zoo.cli.front import load_command
load_command("list").run = lambda args: [print(i) for i in itertools.count()]
sys.exit(main(["list"]))
"""


def test_control_c_exits_130_without_a_traceback(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", "hub", "serve", "--root", str(tmp_path), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "Hub at http://127.0.0.1:" in process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) in (0, front.INTERRUPTED)
    assert "Traceback" not in process.stderr.read()


def test_control_c_in_a_command(monkeypatch, capsys):
    def interrupted(args):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    monkeypatch.setattr(load_command("list"), "run", interrupted)
    assert main(["list"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_python_dash_m_zoo():
    run = subprocess.run([sys.executable, "-m", "zoo", "--version"], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.startswith("zoo ")
