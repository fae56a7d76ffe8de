"""Questions about signatures: answers stand where they are said to, nothing else is asked."""

import inspect
import re
import textwrap
from types import SimpleNamespace

import pytest

import zoo
from zoo.data.text import signatures as room
from zoo.data.text import stdlib
from zoo.data.text.signatures import PLACES, questions
from zoo.data.text.split import is_held_out
from zoo.errors import ConfigError, DataError
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


PAIR = "<|cls|> $A <|sep|> $B:1 <|sep|>:1"


def test_answers_are_the_defaults():
    found = list(questions(SOURCE))
    told = {q: text[a:b] for text, asked in found for q, a, b in asked}
    assert told == {
        "What is port by default?": "80",
        "What is retry by default?": "(1,\n                   2)",
        "What is quiet by default?": "None",
    }  # one default is no question, a body on its line leaves no signature, columns must be ASCII
    assert found[0][0].startswith("    async def open(") and found[0][0].endswith("loud):")


def test_parameters_are_asked_for_by_their_place():
    found = list(questions(SOURCE, "place"))
    told = [[(q.split()[3], text[a:b]) for q, a, b in asked] for text, asked in found]
    assert told == [
        [
            ("first", "self"),
            ("second", "host"),
            ("third", "port=80"),
            ("fourth", "rest"),
            ("fifth", "retry=(1,\n                   2)"),
            ("sixth", "quiet=None"),
            ("seventh", "loud"),
        ]
    ]  # nothing of bodies on their own line, of columns that are not ASCII's
    assert {q for _, asked in found for q, _, _ in asked} == {
        f"What is the {place} parameter?" for place in PLACES[:7]
    }


def test_places_are_those_of_the_text_whatever_is_between_them():
    """Against Python's own reading of the same signature."""
    source = "def f(a: int, b: str = 'x', /, c=1, *d: int, e, g: float = 2.0, **h):\n    return a"
    [(text, asked)] = questions(source, "place")
    names = {}
    exec(source, names)
    parameters = inspect.signature(names["f"]).parameters
    answers = [text[a:b] for _, a, b in asked]
    assert [re.match(r"\w+", answer)[0] for answer in answers] == list(parameters)
    assert answers[1] == "b: str = 'x'" and answers[3:] == ["d: int", "e", "g: float = 2.0", "h"]
    one, nine = ", ".join("a"), ", ".join("abcdefghi")
    assert not list(questions(f"def f({one}):\n    pass", "place"))  # there is no choice
    assert len(next(questions(f"def f({nine}):\n    pass", "place"))[1]) == len(PLACES) == 8


def test_what_is_no_python_asks_nothing():
    assert not list(questions("def f(:")) and not list(questions(""))


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Eight modules: name -> file."""
    found = {}
    for number in range(8):
        path = found[f"m{number}"] = tmp_path / f"m{number}.py"
        own = SOURCE.replace("loud", f"loud{number}")  # or no held-out one would be new
        path.write_text(own, encoding="utf-8")
    for module in (stdlib, room):
        monkeypatch.setattr(module, "modules", lambda: found)
    return found


def data(**keys):
    return build(resolve("data", {"name": "signatures", "held_out": 0.4, **keys}))


def texts(split, tokenizer):
    """The signatures that a split asks about, without their spaces."""
    return {
        "".join(tokenizer.decode(ids[slice(*context)]).split())
        for ids, _, context, _ in split.samples
    }


@pytest.mark.parametrize("ask", ["name", "place"])
def test_no_held_out_signature_is_in_training(few, ask):
    """Modules are held out whole, and what they have copied from others is not asked."""
    tokenizer = zoo.tokenizer("stdlib-bpe", pair=PAIR)
    model = SimpleNamespace(tokenizer=tokenizer)
    before = {s: texts(data(ask=ask).split(s, model), tokenizer) for s in ("train", "test", "all")}
    assert before["test"] and not before["test"] & before["train"]
    assert before["all"] == before["test"] | before["train"]
    copied = next(m for m, p in few.items() if is_held_out(m, 0.4))
    source = next(p for m, p in few.items() if not is_held_out(m, 0.4)).read_text("utf-8")
    few[copied].write_text(source.replace("80, *rest", "80,\n  *rest"), "utf-8")
    after = texts(data(ask=ask).split("test", model), tokenizer)
    assert after < before["test"] and len(before["test"] - after) == 1


def test_signatures_of_real_packages_are_apart(monkeypatch):
    """These three override and copy methods of each other; of 216 signatures in 14
    held-out modules, training has 51."""
    packages = ("asyncio.", "idlelib.", "tkinter.")
    found = {name: path for name, path in stdlib.modules().items() if name.startswith(packages)}
    for module in (stdlib, room):
        monkeypatch.setattr(module, "modules", lambda: found)
    config = resolve("data", {"name": "signatures", "ask": "place"})
    sides = {
        split: {" ".join(text.split()) for text, _ in room.signatures(split, config)}
        for split in ("train", "test")
    }
    assert len(sides["test"]) > 100 and len(sides["train"]) > 500
    assert not sides["train"] & sides["test"]


def test_what_is_asked_is_one_of_two():
    with pytest.raises(ConfigError, match=r"ask.*name.*place"):
        data(ask="type")


def test_spans_of_tokens_hold_the_answers(few):
    tokenizer = zoo.tokenizer("stdlib-bpe", pair=PAIR)
    model = SimpleNamespace(tokenizer=tokenizer)
    train, test = (data().split(split, model) for split in ("train", "test"))
    assert len(train) + len(test) == 8 * 3 and len(test)
    batch = train.batch(range(3))
    for row, answer in zip(range(3), ("80", "(1,\n                   2)", "None")):
        tokens, (start, end) = batch["tokens"][row], (batch["start"][row], batch["end"][row])
        assert answer in tokenizer.decode(tokens[start : end + 1].tolist())
        assert answer not in tokenizer.decode(tokens[start + 1 : end + 1].tolist())
        assert batch["context"][row, start] and batch["context"][row, end]
        places = batch["context"][row].nonzero().flatten()
        first, last = int(places[0]), int(places[-1])
        assert tokenizer.decode(tokens[places].tolist()).endswith(":")
        assert tokens[last + 1] == tokenizer.sep_id and batch["mask"][row].sum() == last + 2
        assert batch["types"][row].nonzero().flatten().tolist() == [*range(first, last + 2)]
        assert tokens[0] == tokenizer.cls_id and tokens[first - 1] == tokenizer.sep_id
        asked = tokenizer.decode(tokens[1 : first - 1].tolist())
        assert asked.startswith("What is ") and asked.endswith(" by default?")
        assert not batch["context"][row, ~batch["mask"][row]].any()


def test_questions_that_are_too_long_are_left_out(few):
    model = SimpleNamespace(tokenizer=zoo.tokenizer("stdlib-bpe", pair=PAIR))
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
