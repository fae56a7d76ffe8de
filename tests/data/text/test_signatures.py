"""Questions about defaults: answers stand where they are said to, nothing else is asked."""

import textwrap
from types import SimpleNamespace

import pytest

import zoo
from zoo.data.text import signatures as room
from zoo.data.text import stdlib
from zoo.data.text.signatures import questions
from zoo.errors import DataError
from zoo.registry import build, resolve

SOURCE = textwrap.dedent(
    '''
    class Pool:
        async def open(self, host, port=80, *rest, retry=(1,
                       2), quiet=None, loud):
            """Opens."""

    def one(a, b=1): pass

    def plain(a, b): pass

    def short(a, /, b=-1.5e3, c=lambda: {"k": [1]}): return a

    def own(a="ü", b=2):
        pass
    '''
)


def test_answers_are_the_defaults():
    found = list(questions(SOURCE))
    told = {q: text[a:b] for text, asked in found for q, a, b in asked}
    assert told == {
        "What is port by default?": "80",
        "What is retry by default?": "(1,\n                   2)",
        "What is quiet by default?": "None",
    }  # one default is no question, a body on its line leaves no signature, columns must be ASCII
    assert found[0][0].startswith("    async def open(") and found[0][0].endswith("loud):")


def test_what_is_no_python_asks_nothing():
    assert not list(questions("def f(:")) and not list(questions(""))


@pytest.fixture
def few(monkeypatch, tmp_path):
    found = {}
    for number in range(8):
        path = found[f"m{number}"] = tmp_path / f"m{number}.py"
        path.write_text(SOURCE, encoding="utf-8")
    for module in (stdlib, room):
        monkeypatch.setattr(module, "modules", lambda: found)


def data(**keys):
    return build(resolve("data", {"name": "signatures", "held_out": 0.4, **keys}))


def test_spans_of_tokens_hold_the_answers(few):
    tokenizer = zoo.tokenizer("stdlib-bpe")
    model = SimpleNamespace(tokenizer=tokenizer)
    train, test = (data().split(split, model) for split in ("train", "test"))
    assert len(train) + len(test) == 8 * 3 and len(test)
    batch = train.batch(range(3))
    for row, answer in zip(range(3), ("80", "(1,\n                   2)", "None")):
        tokens, (start, end) = batch["tokens"][row], (batch["start"][row], batch["end"][row])
        assert answer in tokenizer.decode(tokens[start : end + 1].tolist())
        assert answer not in tokenizer.decode(tokens[start + 1 : end + 1].tolist())
        assert batch["context"][row, start] and batch["context"][row, end]
        first = int(batch["context"][row].int().argmax())
        assert tokens[0] == tokenizer.cls_id and tokens[first - 1] == tokenizer.sep_id
        asked = tokenizer.decode(tokens[1 : first - 1].tolist())
        assert asked.startswith("What is ") and asked.endswith(" by default?")
        assert not batch["context"][row, ~batch["mask"][row]].any()


def test_questions_that_are_too_long_are_left_out(few):
    model = SimpleNamespace(tokenizer=zoo.tokenizer("stdlib-bpe"))
    with pytest.raises(DataError, match="at most 20 tokens"):
        data(length=20).split("train", model)


def test_an_encoder_learns_from_them(few):
    """The batches are those of objective=answer-span: a few steps on eight questions."""
    import torch

    model = zoo.create("bert-stdlib", "task=span", "backbone.depth=1", "backbone.width=32", seed=0)
    objective = build(resolve("objective", "answer-span"))
    source = data()
    objective.check(model, source)
    batch = source.split("train", model).batch(range(8))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = objective(model, batch).value
        losses.append(float(loss.detach()))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert losses[-1] < 0.8 * losses[0]
