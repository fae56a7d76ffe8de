"""Generated files are current, and the tools notice when they are not."""

import hashlib
import json

from tools import generated, write_checksums, write_counts


def test_parameter_counts_are_current():
    (text,) = write_counts.files().values()
    assert write_counts.FILE.read_text() == text, "run: make cards"


def test_counts_are_those_of_a_built_model():
    import zoo

    model = zoo.create("vit-digits")
    counted = json.loads(write_counts.FILE.read_text())["vit-digits"]
    assert counted == sum(p.numel() for p in model.parameters())


def test_checksums_are_current():
    for file, text in write_checksums.files().items():
        assert file.read_text() == text, "run: make cards"


def test_checksums_cover_every_file_of_shipped_weights(tmp_path, monkeypatch):
    for name in ("a/x.bin", "a/.x.tmp", "other/y.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr(write_checksums, "shipped_models", lambda: {"model": "a"})
    monkeypatch.setattr(write_checksums, "ASSETS", tmp_path)
    monkeypatch.setattr(write_checksums, "FILE", tmp_path / "checksums.json")
    (text,) = write_checksums.files().values()
    assert json.loads(text) == {"a/x.bin": hashlib.sha256(b"x").hexdigest()}


def test_run_writes_and_checks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generated, "ROOT", tmp_path)
    wanted = {tmp_path / "a.txt": "é\n"}
    assert generated.run(lambda: wanted, ["--check"]) == 1
    assert "a.txt is stale; run: make cards" in capsys.readouterr().err
    assert generated.run(lambda: wanted, []) == 0
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "é\n"
    assert generated.run(lambda: wanted, ["--check"]) == 0
    assert capsys.readouterr().out == "wrote a.txt\n"
