"""Logs: lines that are JSON, the same as a table, forgotten after a resume, lost on a full disk."""

import csv
import json

import pytest

from zoo.training.log import Log, Screen


def table(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_lines_and_table_say_the_same(tmp_path):
    log = Log(tmp_path)
    log.write(1, {"loss": 2.5, "lr": 0.1})
    log.write(1, {"eval/accuracy": 0.5})
    log.write(2, {"loss": float("nan"), "lr": 0.2})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 1, "loss": 2.5, "lr": 0.1},
        {"step": 1, "eval/accuracy": 0.5},
        {"step": 2, "loss": None, "lr": 0.2},
    ]
    rows = table(tmp_path)
    assert list(rows[0]) == ["step", "loss", "lr", "eval/accuracy"]
    assert [row["loss"] for row in rows] == ["2.5", "", ""] and rows[1]["eval/accuracy"] == "0.5"


def test_a_resumed_log_forgets_what_is_done_again(tmp_path):
    log = Log(tmp_path)
    for step in (1, 2, 3, 4):
        log.write(step, {"loss": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # cut off by a crash
    again = Log(tmp_path, start=2)
    assert [line["step"] for line in again.read()] == [1, 2]
    again.write(3, {"loss": 30, "new": 1})
    assert [row["loss"] for row in table(tmp_path)] == ["1", "2", "30"]
    assert [line["step"] for line in again.read()] == [1, 2, 3]


def test_a_full_disk_costs_lines_only(tmp_path):
    log = Log(tmp_path)
    log.lines_file = tmp_path / "no such folder" / "metrics.jsonl"
    with pytest.warns(UserWarning, match="could not be written .*; training goes on") as seen:
        log.write(1, {"loss": 1})
        log.write(2, {"loss": 1})
    assert len(seen) == 1


def test_tensorboard(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = Log(tmp_path, tensorboard=True)
    log.write(3, {"loss": 0.25})
    log.close()
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(3, 0.25)]


def test_plain_lines_without_a_terminal(capsys):
    screen = Screen(100, 0)
    screen.say(7, {"loss": 0.123456, "samples/s": 12})
    screen.advance(7)
    screen.close()
    assert capsys.readouterr().out == "step   7/100  loss 0.1235  samples/s 12\n"
    Screen(100, 0, show=False).say(7, {"loss": 1.0})
    assert capsys.readouterr().out == ""


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(10, 2)
    screen.advance(5)
    screen.say(5, {"loss": 0.5})
    screen.close()
    said = capsys.readouterr()
    assert "5/10" in said.err and "loss 0.5" in said.err and said.out == ""
