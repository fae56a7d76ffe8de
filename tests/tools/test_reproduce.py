"""tools/reproduce: what is listed exists, and a missed number is a failure."""

import json
import types

import pytest

import zoo
from tools import reproduce


def test_what_is_listed_exists():
    proofs = reproduce.read_proofs()
    assert "digits_vit" in proofs
    for proof in proofs.values():
        words = dict(word.split("=", 1) for word in proof.train.split())
        assert words["experiment"] in zoo.list("experiment"), proof.name
        assert 0 < proof.minutes <= 12 * 60


def test_what_draws_is_held_to_all_four_numbers():
    """A model may draw the words of its training and not understand them: one number hides that."""
    proofs = reproduce.read_proofs()
    for name in ("digits_dalle", "digits_parti", "digits_muse"):
        assert {bar.metric for bar in proofs[name].bars} == {"digit", "colour", "unseen", "frechet"}


@pytest.mark.parametrize(
    ("bounds", "value", "holds"),
    [
        ({"at_least": {"m": 0.9}}, 0.9, True),
        ({"at_least": {"m": 0.9}}, 0.89, False),
        ({"at_most": {"m": 0.1}}, 0.1, True),
        ({"at_most": {"m": 0.1}}, 0.11, False),
        ({"at_most": {"m": 0.1}}, float("nan"), False),
    ],
)
def test_bars(bounds, value, holds):
    (bar,) = reproduce.Proof(name="x", train="", minutes=1, **bounds).bars
    assert bar.holds(value) == holds


def test_a_proof_without_a_bar_is_refused(tmp_path):
    file = tmp_path / "proofs.yaml"
    file.write_text("empty: {train: experiment=digits_vit, minutes: 1}\n")
    with pytest.raises(AssertionError, match="empty needs a bar"):
        reproduce.read_proofs(file)


@pytest.fixture
def proofs(tmp_path):
    file = tmp_path / "proofs.yaml"
    words = "experiment=digits_vit model.backbone.depth=1 trainer.steps=1"
    file.write_text(
        f"easy: {{train: {words}, at_least: {{accuracy: 0.0}}, minutes: 5}}\n"
        f"hard: {{train: {words}, at_least: {{accuracy: 1.1}}, minutes: 5}}\n"
    )
    return file


def test_a_proof_trains_measures_and_compares(proofs, tmp_path, capfd):
    assert reproduce.main(["easy"], proofs, tmp_path / "runs") == 0
    result = json.loads((tmp_path / "runs" / "results.json").read_text())["easy"]
    assert result["verdict"] == "ok" and 0 <= result["metrics"]["accuracy"] <= 1
    assert result["cpu_minutes"] > 0
    assert "easy\taccuracy\t" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("name", "minutes", "verdict"), [("easy", 5, "ok"), ("hard", 5, "missed"), ("easy", -1, "slow")]
)
def test_verdicts(name, minutes, verdict, proofs, tmp_path, monkeypatch, capsys):
    answers = types.SimpleNamespace(stdout='{"accuracy": 1.0}')
    monkeypatch.setattr(reproduce.subprocess, "run", lambda *_, **__: answers)
    proofs.write_text(proofs.read_text().replace("minutes: 5", f"minutes: {minutes}"))
    assert reproduce.main([name], proofs, tmp_path / "runs") == (verdict != "ok")
    result = json.loads((tmp_path / "runs" / "results.json").read_text())[name]
    assert result["verdict"] == verdict and result["metrics"] == {"accuracy": 1.0}
    assert result["missed"] == (["accuracy"] if verdict == "missed" else [])
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"\t{verdict}")


def test_each_number_is_judged_and_the_seed_can_be_chosen(proofs, tmp_path, monkeypatch, capsys):
    proofs.write_text(
        "both: {train: experiment=x, at_least: {good: 0.9}, at_most: {bad: 0.1}, minutes: 5}\n"
    )
    commands = []
    answers = types.SimpleNamespace(stdout='{"good": 0.95, "bad": 0.2}')
    monkeypatch.setattr(
        reproduce.subprocess, "run", lambda words, **_: commands.append(words) or answers
    )
    assert reproduce.main(["both", "--seed", "2"], proofs, tmp_path / "runs") == 1
    assert "seed=2" in commands[0]
    result = json.loads((tmp_path / "runs" / "results.json").read_text())["both"]
    assert result["missed"] == ["bad"] and result["verdict"] == "missed"
    good, bad = (line.split("\t") for line in capsys.readouterr().out.splitlines()[-2:])
    assert good[:4] == ["both", "good", "0.9500", ">= 0.9"] and good[-1] == "ok"
    assert bad[:4] == ["both", "bad", "0.2000", "<= 0.1"] and bad[-1] == "missed"


def test_list_and_wrong_names(proofs, capsys):
    assert reproduce.main(["--list"], proofs) == 0
    assert "easy\taccuracy\t>= 0.0\t5\t" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        reproduce.main(["hart"], proofs)
    assert "no proof is called 'hart'" in capsys.readouterr().err
