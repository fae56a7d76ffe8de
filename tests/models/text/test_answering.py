"""Answers that stand in a text: which span is taken, which characters it is, long texts."""

from types import SimpleNamespace

import pytest
import torch

import zoo
from zoo.cli import main
from zoo.errors import ConfigError, DataError
from zoo.models.base import build_empty
from zoo.models.text.answering import find_answer
from zoo.registry import resolve

PAIR = "<|cls|> $A <|sep|> $B:1 <|sep|>:1"


@pytest.fixture(scope="module")
def tokenizer():
    return zoo.tokenizer("stdlib-bpe", pair=PAIR)


class Points:
    """Scores the first token of one word as a start and the last of another as an end."""

    device = torch.device("cpu")

    def __init__(self, tokenizer, first, last, length=64):
        self.tokenizer, self.seen = tokenizer, []
        self.config = SimpleNamespace(backbone=SimpleNamespace(length=length))
        self.first, self.last = (
            tokenizer.encode(first, special=False)[0],
            tokenizer.encode(last, special=False)[-1],
        )

    def __call__(self, tokens, types):
        self.seen.append((tokens[0].tolist(), types[0].tolist()))
        scores = torch.stack([tokens == self.first, tokens == self.last], -1)
        return SimpleNamespace(logits=9.0 * scores)


def test_the_characters_between_the_two_ends(tokenizer):
    text = "def open(self, host, port=80):"
    model = Points(tokenizer, " host", " port")
    found = find_answer(model, text, "What is host or port?")  # the question is no place for it
    assert str(found) == text[found.start : found.end] == "host, port"
    assert 0.9 < found.probability <= 1.0
    (tokens, types), asked = model.seen[0], tokenizer("What is host or port?", text)
    assert (tokens, types) == (asked.tokens[0].tolist(), asked.segments[0].tolist())


def test_no_longer_than_asked_and_never_backwards(tokenizer):
    text = "def open(self, host, port=80):"
    assert len(find_answer(Points(tokenizer, " host", " port"), text, "?", longest=1).text) < 10
    found = find_answer(Points(tokenizer, " port", " host"), text, "?")
    assert found.start < found.end and found.probability < 0.9


@pytest.mark.parametrize("place", [0, 7, 40, 99, 150, 199])
def test_a_long_text_is_read_in_windows(tokenizer, place):
    """Wherever it is, an answer lies whole in a window; what is read is never too long."""
    words = [f"x{i % 10}" for i in range(200)]
    words[place : place + 1] = ["host", "and", "port"]
    text = " ".join(words)
    found = find_answer(model := Points(tokenizer, " host", " port"), " " + text, "Which?")
    assert found.text == "host and port" and (" " + text)[found.start : found.end] == found.text
    assert len(model.seen) > 8 and all(len(tokens) <= 64 for tokens, _ in model.seen)
    read = {token for tokens, _ in model.seen for token in tokens}
    assert read >= set(tokenizer.encode(text, special=False)[1:])


def test_what_cannot_be_answered_is_refused(tokenizer):
    model = Points(tokenizer, "a", "b")
    with pytest.raises(DataError, match="The text is empty"):
        find_answer(model, "", "What?")
    with pytest.raises(DataError, match="no room for a text in the model's 64 tokens"):
        find_answer(model, "x = 1", "Why? " * 64)


def test_the_verb_and_the_command(tmp_path, capsys):
    model = zoo.create("bert-stdlib", task="span", tokenizer={"name": "stdlib-bpe", "pair": PAIR})
    zoo.save(model.eval(), tmp_path / "m")
    text, question = "def f(a, b=1):", "What is the second parameter?"
    expected = model.answer(text, question)
    assert zoo.load(f"dir:{tmp_path}/m").answer(text, question) == expected
    assert main(["answer", f"dir:{tmp_path}/m", text, question]) == 0
    assert capsys.readouterr().out == f"{expected}\n"
    assert main(["answer", f"dir:{tmp_path}/m", text, question, "--json"]) == 0
    assert f'"start": {expected.start}' in capsys.readouterr().out
    for words, said in (
        ([question], "needs one text and a question"),
        ([text, text, question], "needs one text and a question"),
        ([text, question, "--temperature", "1"], "temperature: an answer out of a text takes no"),
    ):
        assert main(["answer", f"dir:{tmp_path}/m", *words]) == 2
        assert said in capsys.readouterr().err
    fills = build_empty(resolve("model", "bert-stdlib"))
    with pytest.raises(ConfigError, match="head is 'fill', not 'span'"):
        fills.answer(text, question)
