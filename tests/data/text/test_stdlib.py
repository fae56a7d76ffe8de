"""The standard library as text: fixed order, a split by names, windows over all tokens."""

import ast
from types import SimpleNamespace

import pytest
import torch

from zoo.data.text import stdlib
from zoo.data.text.split import in_split, is_held_out
from zoo.data.text.stdlib import ScoredWindows, TokenWindows, modules, stdlib_texts
from zoo.errors import ConfigError, DataError
from zoo.registry import build, read_node, resolve, to_mapping

FEW = ("abc", "ast", "base64", "bisect", "colorsys", "enum", "graphlib", "zipapp")


@pytest.fixture(scope="module")
def tokenizer():
    return build(read_node("tokenizer", "stdlib-bpe"))


@pytest.fixture
def few(monkeypatch):
    """Only a handful of modules, for speed."""
    chosen = {name: modules()[name] for name in FEW}
    monkeypatch.setattr(stdlib, "modules", lambda: chosen)
    return chosen


def test_modules_are_the_librarys_own_in_order():
    found = modules()
    assert list(found) == sorted(found)
    assert 500 < len(found) < 1500
    assert {"argparse", "json.decoder", "asyncio.events"} <= set(found)
    assert not [name for name in found if {"test", "tests"} & set(name.split("."))]
    assert not [name for name in found if name.split(".")[0] in ("pip", "numpy", "torch")]


def test_the_split_depends_on_names_alone():
    assert [is_held_out("json.decoder", share) for share in (0.0, 1.0)] == [False, True]
    names = list(modules())
    held = [name for name in names if in_split(name, "test", 0.05)]
    assert [n for n in names if in_split(n, "train", 0.05)] == [n for n in names if n not in held]
    assert 0.02 < len(held) / len(names) < 0.09
    # these are the names that 3.10 to 3.14 share; the same ones are held out everywhere
    assert is_held_out("base64", 0.05) is False and is_held_out("graphlib", 0.05) is False
    assert set(held) >= {n for n in names if in_split(n, "test", 0.02)}  # a larger share adds
    with pytest.raises(DataError, match="no split 'dev'; use train, test or all"):
        in_split("abc", "dev", 0.1)


def test_sources_and_docstrings(few):
    sources = list(stdlib_texts())
    assert len(sources) == len(few)
    for source in sources:
        ast.parse(source)
    words = list(stdlib_texts(content="docstrings"))
    assert "Abstract Base Classes (ABCs) according to PEP 3119." in words[0]
    assert sum(map(len, words)) < sum(map(len, sources)) / 2
    assert all(text.strip() for text in words)
    train, test = (list(stdlib_texts(split, held_out=0.5)) for split in ("train", "test"))
    assert sorted(train + test) == sorted(sources) and train and test
    with pytest.raises(DataError, match="content: must be source or docstrings"):
        next(stdlib_texts(content="comments"))


def test_a_file_that_python_cannot_read_is_left_out(few, tmp_path):
    (tmp_path / "broken.py").write_bytes(b"# coding: nonsense\n")
    (tmp_path / "latin.py").write_bytes("# coding: latin-1\n'''caf\xe9'''".encode("latin-1"))
    (tmp_path / "old.py").write_text("print 'a statement'")
    for name in ("broken", "latin", "old"):
        few[name] = tmp_path / f"{name}.py"
    texts = list(stdlib_texts())
    assert "café" in texts[-2] and texts[-1] == "print 'a statement'"
    assert list(stdlib_texts(content="docstrings"))[-1] == "café"


def test_windows_hold_every_token_once(few, tokenizer):
    texts = list(stdlib_texts())
    windows = TokenWindows(tokenizer, texts, 64)
    ids = [[*tokenizer.encode(text, control=False), tokenizer.eos_id] for text in texts]
    whole = [number for row in ids for number in row]
    assert windows.bytes == sum(len(text.encode()) for text in texts)
    batch = windows.batch(range(len(windows)))["tokens"]
    assert batch.dtype == torch.long and batch.shape == (len(whole) // 64, 64)
    assert batch.flatten().tolist() == whole[: len(windows) * 64]


def test_training_windows_begin_where_their_seed_says(few, tokenizer):
    windows = TokenWindows(tokenizer, stdlib_texts(), 64)
    seeds = torch.tensor([0, 1, 63, 64])
    tokens = windows.batch([0, 0, 0, 1], seeds)["tokens"]
    still = windows.batch([0, 1])["tokens"]
    assert tokens[0].equal(still[0]) and tokens[3].equal(still[1])
    assert tokens[1, :-1].equal(still[0, 1:]) and tokens[2, 0] == still[0, 63]
    last = windows.batch([len(windows) - 1], torch.tensor([63]))["tokens"]
    assert last.shape == (1, 64)  # never beyond the end
    assert windows.batch([2], seeds[1:2])["tokens"].equal(windows.batch([2], seeds[1:2])["tokens"])


@pytest.mark.parametrize(("length", "context"), [(64, 0), (64, 40), (50, 48), (33, 1)])
def test_scored_windows_count_every_token_once(few, tokenizer, length, context):
    texts = list(stdlib_texts())
    windows = ScoredWindows(tokenizer, texts, length, context)
    ids = [[*tokenizer.encode(text, control=False), tokenizer.eos_id] for text in texts]
    row = torch.tensor([tokenizer.eos_id, *(number for row in ids for number in row)])
    batch = windows.batch(range(len(windows)))
    assert batch["tokens"].shape == batch["scored"].shape == (len(windows), length)
    assert batch["tokens"][batch["scored"]].equal(row[1:])  # once each, in order
    assert batch["scored"][1:].int().argmax(-1).min() >= max(context, 1)
    total = batch["scored"].sum() * batch["bytes_per_token"][0]
    assert float(total) == pytest.approx(windows.bytes)


def test_the_node(few, tokenizer):
    config = resolve("data", {"name": "stdlib", "length": 32, "held_out": 0.5})
    assert resolve("data", to_mapping(config)) == config
    data = build(config)
    model = SimpleNamespace(tokenizer=tokenizer)
    train, test = data.split("train", model), data.split("test", model)
    assert train.batch([0])["tokens"].shape == (1, 32)
    assert train.bytes + test.bytes == sum(len(t.encode()) for t in stdlib_texts())
    with pytest.raises(DataError, match="needs a model with a tokenizer of text"):
        data.split("train", SimpleNamespace(tokenizer=None))
    with pytest.raises(DataError, match="less than one window of 10000000"):
        build(resolve("data", {"name": "stdlib", "length": 10**7})).split("train", model)
    assert "scored" in test.batch([0]) and "scored" not in train.batch([0])
    with pytest.raises(ConfigError, match="at most 30 can be context"):
        resolve("data", {"name": "stdlib", "length": 32, "context": 31})
    with pytest.raises(ConfigError, match="at least 2"):
        resolve("data", {"name": "stdlib", "length": 1})


def test_a_python_without_sources(monkeypatch, tmp_path):
    monkeypatch.setattr(stdlib.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="carries no sources of its standard library"):
        modules.__wrapped__()
