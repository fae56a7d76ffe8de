"""Pieces of packages: whole lines, right labels, no module in both splits."""

from types import SimpleNamespace

import pytest
import torch

import zoo
from zoo.data.text import packages, stdlib
from zoo.data.text.packages import pieces
from zoo.errors import DataError
from zoo.registry import build, resolve


@pytest.fixture(scope="module")
def model():
    return SimpleNamespace(tokenizer=zoo.tokenizer("stdlib-bpe"))


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Two packages of small modules."""
    found = {}
    for package, word in (("left", "alpha"), ("right", "omega")):
        for number in range(8):
            path = tmp_path / f"{package}{number}.py"
            path.write_text("".join(f"{word} = {i} + {number}\n" for i in range(30)))
            found[f"{package}.m{number}"] = path
    for module in (stdlib, packages):
        monkeypatch.setattr(module, "modules", lambda: found)
    return found


def data(**keys):
    return build(resolve("data", {"name": "packages", "packages": ["left", "right"], **keys}))


def test_pieces_are_whole_lines(model):
    text = "".join(f"value_{i} = function(argument, {i})\n" for i in range(20))
    rows = pieces(model.tokenizer, text, 40)
    assert len(rows) > 3 and all(20 <= len(row) <= 40 for row in rows)
    whole = "".join(model.tokenizer.decode(row) for row in rows)
    assert text.startswith(whole) and all(
        model.tokenizer.decode(row).endswith("\n") for row in rows
    )
    (cut,) = pieces(model.tokenizer, "x = [" + "1, " * 400 + "]\n", 32)
    assert len(cut) == 32  # a line that is too long is cut


def test_labels_are_the_packages(model, few):
    source = data(length=32, held_out=0.4)
    assert source.labels == ["left", "right"]
    words = ["alpha", "omega"]
    for split in ("train", "test"):
        dataset = source.split(split, model)
        batch = dataset.batch(range(len(dataset)))
        assert (batch["tokens"][:, 0] == model.tokenizer.cls_id).all()
        assert batch["mask"].dtype == torch.bool and batch["mask"].shape == batch["tokens"].shape
        assert set(batch["labels"].tolist()) == {0, 1}
        texts = [
            model.tokenizer.decode(row[real].tolist()[1:])
            for row, real in zip(batch["tokens"], batch["mask"], strict=True)
        ]
        for text, label in zip(texts, batch["labels"].tolist(), strict=True):
            assert words[label] in text and words[1 - label] not in text
    assert len(source.split("train", model)) + len(source.split("test", model)) == sum(
        len(pieces(model.tokenizer, path.read_text(), 32)) for path in few.values()
    )


def test_a_package_that_is_not_there(model, few):
    wrong = build(resolve("data", {"name": "packages", "packages": ["left", "rigth"]}))
    with pytest.raises(DataError, match=r"no package 'rigth'\. Did you mean 'right'"):
        wrong.split("train", model)
    with pytest.raises(DataError, match="not one piece"):
        data(length=10_000).split("train", model)
