"""How commands print."""

import io
import json
import sys

import pytest

from zoo.cli import output

ROWS = [["vit", 86], ["[odd] name", None]]


def test_piped_tables_are_tab_separated_lines(capsys):
    output.print_table(["model", "size"], ROWS, caption="c")
    assert capsys.readouterr().out == "vit\t86\n[odd] name\t\n"


def test_terminals_get_a_table(capsys, monkeypatch):
    monkeypatch.setattr(output, "is_terminal", lambda stream=None: True)
    output.print_table(["model", "size"], ROWS, right=["size"], caption="[2 models]")
    out = capsys.readouterr().out
    assert "model" in out and "[odd] name" in out and "[2 models]" in out and "─" in out


def test_json_keeps_letters(capsys):
    output.print_json({"name": "é", "file": __import__("pathlib").Path("a/b")})
    out = capsys.readouterr().out
    assert json.loads(out) == {"name": "é", "file": "a/b"} and "é" in out


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_progress_is_drawn_for_a_person(stream, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    with output.progress(3, "reading") as advance, output.status("loading"):
        advance(1)
        advance(2)
    assert ("reading" in stream.getvalue()) == stream.isatty()


def test_one_step_needs_no_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with output.progress(1, "reading") as advance:
        advance(1)
    assert sys.stderr.getvalue() == ""


def test_a_dumb_terminal_is_no_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert output.is_terminal(Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert not output.is_terminal(Terminal())
    assert not output.is_terminal(io.StringIO())
