"""The verbs of text on the command line: each says what Python's verb says."""

import io

import numpy
import pytest

import zoo


@pytest.fixture(scope="module")
def shipped():
    return {n: zoo.load(n) for n in ("gpt-stdlib", "bert-stdlib", "numbers-en-de")}


def test_generate_streams_what_python_generates(zoo_command, zoo_json, shipped):
    words = ["generate", "gpt-stdlib", "import os", "--max-new-tokens", "5"]
    expected = shipped["gpt-stdlib"].generate("import os", max_new_tokens=5)
    assert zoo_command(*words) == (0, expected + "\n", "")
    assert zoo_json(*words) == [{"prompt": "import os", "text": expected}]


def test_chat_remembers_what_was_said(zoo_command, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n\nnever read\n"))
    said = []

    class Talker:
        device = "cpu"

        def chat(self, messages, **given):
            said.append(([dict(m) for m in messages], given))
            return f"answer {len(said)}"

    monkeypatch.setattr("zoo.cli.commands.chat.load_model", lambda *_: Talker())
    words = ["chat", "any", "--system", "be kind", "--max-new-tokens", "3"]
    assert zoo_command(*words) == (0, "answer 1\nanswer 2\n", "")
    (_, given), (messages, _) = said
    assert given["max_new_tokens"] == 3
    assert [(m["role"], m["content"]) for m in messages] == [
        ("system", "be kind"),
        ("user", "one"),
        ("assistant", "answer 1"),
        ("user", "two"),
    ]


def test_chat_with_a_real_model(zoo_command, monkeypatch, tmp_path):
    """A tiny model with a template: the prompt is the template's, the answer the model's."""
    model = zoo.create("gpt-stdlib", "tokenizer.chat=chatml", "backbone.depth=1", seed=0)
    zoo.save(model, tmp_path / "m")
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    code, out, err = zoo_command("chat", f"dir:{tmp_path / 'm'}", "--max-new-tokens", "4")
    asked = [{"role": "user", "content": "hello"}]
    assert (code, err) == (0, "")
    assert out == model.eval().chat(asked, max_new_tokens=4) + "\n"


def test_translate_line_by_line(zoo_command, zoo_json, monkeypatch):
    words = ["translate", "numbers-en-de", "forty-two", "one hundred"]
    assert zoo_command(*words) == (0, "zweiundvierzig\neinhundert\n", "")
    assert zoo_json(*words)[0] == {"source": "forty-two", "target": "zweiundvierzig"}
    monkeypatch.setattr("sys.stdin", io.StringIO("forty-two\none hundred\n"))
    assert zoo_command("translate", "numbers-en-de", "-")[1] == "zweiundvierzig\neinhundert\n"


def test_fill(zoo_json, shipped):
    text = "def __init__(<|mask|>, name):\n    self.name = name\n"
    expected = [vars(f) for f in shipped["bert-stdlib"].fill(text, top=2)]
    assert zoo_json("fill", "bert-stdlib", text, "--top", "2") == expected


def test_embed(zoo_command, zoo_json, shipped, tmp_path):
    texts = ["import os", "class A: pass"]
    vectors = shipped["bert-stdlib"].embed(texts).numpy()
    code, out, _ = zoo_command("embed", "bert-stdlib", *texts, "--out", tmp_path / "v")
    assert code == 0 and "2 vectors of 96" in out
    numpy.testing.assert_allclose(numpy.load(tmp_path / "v"), vectors, atol=1e-6)
    code, out, _ = zoo_command("embed", "bert-stdlib", *texts, "--similarity")
    unit = vectors / numpy.linalg.norm(vectors, axis=-1, keepdims=True)
    assert code == 0 and f"{unit[0] @ unit[1]:.3f}" in out and "1.000" in out


def test_export_in_a_public_layout(zoo_command, tmp_path):
    narrow = ["backbone.depth=1", "backbone.width=48", "vocabulary=100"]
    zoo.save(zoo.create("gpt2", *narrow, seed=0), tmp_path / "m")
    words = ["export", f"dir:{tmp_path / 'm'}", tmp_path / "out", "--format", "transformers-gpt2"]
    assert zoo_command(*words)[0] == 0
    again, first = zoo.load(f"dir:{tmp_path / 'out'}"), zoo.load(f"dir:{tmp_path / 'm'}")
    assert (tmp_path / "out" / "config.json").read_text().count('"gpt2"') == 1
    for one, other in zip(again.state_dict().values(), first.state_dict().values(), strict=True):
        assert one.equal(other)
