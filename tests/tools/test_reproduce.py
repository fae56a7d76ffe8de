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


@pytest.mark.parametrize(
    ("bar", "value", "holds"),
    [
        ({"at_least": 0.9}, 0.9, True),
        ({"at_least": 0.9}, 0.89, False),
        ({"at_most": 0.1}, 0.1, True),
        ({"at_most": 0.1}, 0.11, False),
    ],
)
def test_bars(bar, value, holds):
    proof = reproduce.Proof(name="x", train="", metric="m", minutes=1, **bar)
    assert proof.holds(value) == holds


@pytest.fixture
def proofs(tmp_path):
    file = tmp_path / "proofs.yaml"
    words = "experiment=digits_vit model.backbone.depth=1 trainer.steps=1"
    file.write_text(
        f"easy: {{train: {words}, metric: accuracy, at_least: 0.0, minutes: 5}}\n"
        f"hard: {{train: {words}, metric: accuracy, at_least: 1.1, minutes: 5}}\n"
    )
    return file


def test_a_proof_trains_measures_and_compares(proofs, tmp_path, capfd):
    assert reproduce.main(["easy"], proofs, tmp_path / "runs") == 0
    result = json.loads((tmp_path / "runs" / "results.json").read_text())["easy"]
    assert result["verdict"] == "ok" and 0 <= result["value"] <= 1
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
    assert result["verdict"] == verdict and result["value"] == 1.0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"\t{verdict}")


def test_list_and_wrong_names(proofs, capsys):
    assert reproduce.main(["--list"], proofs) == 0
    assert "easy\taccuracy\t>= 0.0\t5\t" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        reproduce.main(["hart"], proofs)
    assert "no proof is called 'hart'" in capsys.readouterr().err
