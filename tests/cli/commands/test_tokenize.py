"""zoo tokenize and zoo tokenizer train."""

import io
import json

import pytest

from zoo.cli.front import main


def run(capsys, *words):
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_tokens_of_a_text(capsys):
    code, out, _ = run(capsys, "tokenize", "stdlib-bpe", "import os\n")
    assert code == 0
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[1] for row in rows] == ["import", "Ġos", "Ċ"]
    assert all(row[0].isdigit() for row in rows)


def test_json(capsys):
    code, out, _ = run(capsys, "tokenize", "byt5", "é", "--json")
    assert code == 0
    assert json.loads(out) == {"ids": [198, 172, 1], "pieces": ["Ã", "©", "</s>"], "text": "é"}
    _, out, _ = run(capsys, "tokenize", "byt5", "é", "--json", "--plain")
    assert json.loads(out)["ids"] == [198, 172]
    _, out, _ = run(capsys, "tokenize", "perceiver", "a", "--pair", "b", "--json")
    assert json.loads(out)["ids"] == [4, 103, 5, 104, 5]
    _, out, _ = run(capsys, "tokenize", "byt5", "a", "--set", "single=$A", "--json")
    assert json.loads(out)["ids"] == [100]


def test_text_from_stdin(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("ab"))
    _, out, _ = run(capsys, "tokenize", "byte", "--json")
    assert json.loads(out)["text"] == "ab"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tokenize", "stdlib-bp", "x"], "Unknown tokenizer 'stdlib-bp'. Did you mean"),
        (["tokenize", "patches", "x"], "'patches' is a patches tokenizer, not one of text"),
        (["tokenize", "vit-digits", "x"], "is a patches tokenizer, not one of text"),
        (["tokenize", "dir:/nowhere", "x"], "no such folder"),
        (["tokenize", "byte", "x", "--set", "padding=up"], "padding: must be one of right, left"),
        (["tokenizer", "train", "byte-bpe", "F"], "--data"),
        (["tokenizer", "train", "bpe", "F", "--data", "stdlib"], "Unknown kind 'bpe'"),
        (["tokenizer", "train", "character", "F", "--data", "/nowhere.txt"], "No such file"),
        (
            ["tokenizer", "train", "character", "F", "--data", "stdlib", "--special", "eos"],
            "not of the form role=token",
        ),
    ],
)
def test_what_is_refused(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *words)
    assert code == 2 and not out
    assert message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_train_then_tokenize(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "texts" / "one.txt"
    text.parent.mkdir()
    text.write_text("to be or not to be, that is the question\n" * 20)
    words = ["tokenizer", "train", "byte-bpe", "made", "--data", "texts", "--vocabulary", "290"]
    special = ["--special", "eos=<end>", "--special", "extra=<a>", "--special", "extra=<b>"]
    code, out, _ = run(capsys, *words, *special, "--set", "pattern=gpt4")
    assert code == 0 and out.startswith("made: byte-bpe, 2")
    _, out, _ = run(capsys, "tokenize", "dir:made", "to be<b>", "--json")
    found = json.loads(out)
    assert found["pieces"][-1] == "<b>" and found["text"] == "to be"
    assert len(found["ids"]) < len("to be") + 1
    code, out, _ = run(capsys, *words, "--json")
    assert json.loads(out)["kind"] == "byte-bpe" and json.loads(out)["vocabulary"] <= 290
    text.write_bytes(b"\xff\xfe")
    code, _, err = run(capsys, *words)
    assert code == 2 and "is no text in UTF-8" in err


def test_a_folder_of_any_hub_repository(capsys, tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nhello\n##s\n")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    _, out, _ = run(capsys, "tokenize", f"dir:{tmp_path}", "Hellos", "--json")
    assert json.loads(out)["pieces"] == ["[CLS]", "hello", "##s", "[SEP]"]
