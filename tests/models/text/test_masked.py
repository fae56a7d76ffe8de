"""Encoders and their heads: outputs, sentence vectors, swapped parts."""

# b batch, n tokens, v vocabulary, k classes

import pytest
import torch

import zoo

TINY = {
    "vocabulary": 53,
    "backbone": {
        "depth": 2,
        "width": 32,
        "length": 40,
        "attention": {"heads": 4},
        "feedforward": {"hidden": 48},
    },
}


def tiny(name, *overrides):
    return zoo.create(name, TINY, *overrides, seed=0)


def tokens(n=9):
    return torch.randint(5, 53, (2, n), generator=torch.Generator().manual_seed(0))


MASKS = {"left": [[0] * 3 + [1] * 6, [1] * 9], "right": [[1] * 6 + [0] * 3, [1] * 9]}


@pytest.mark.parametrize(
    ("task", "overrides", "shape"),
    [
        ("fill", [], (2, 9, 53)),
        ("classify", ["classes=5"], (2, 5)),
        ("tag", ["classes=5"], (2, 9, 5)),
        ("span", [], (2, 9, 2)),
        ("embed", [], None),
    ],
)
@pytest.mark.parametrize("name", ["bert-base-uncased", "roberta-base"])
@torch.no_grad()
def test_heads(name, task, overrides, shape):
    model = tiny(name, f"task={task}", "next_sentence=false", *overrides).eval()
    output = model(tokens())
    assert output.hidden.shape == (2, 9, 32)
    assert (None if output.logits is None else tuple(output.logits.shape)) == shape
    assert (output.pooled is not None) == (name == "bert-base-uncased")


@torch.no_grad()
def test_pretraining_has_two_heads():
    output = tiny("bert-base-uncased").eval()(tokens(), types=(tokens() > 30).long())
    assert output.next_sentence.shape == (2, 2) and output.logits.shape == (2, 9, 53)
    assert not torch.equal(output.logits, tiny("bert-base-uncased").eval()(tokens()).logits)


@pytest.mark.parametrize("source", ["mean", "first", "pooler"])
@pytest.mark.parametrize("side", MASKS)
@torch.no_grad()
def test_sentence_vectors_do_not_see_padding(source, side):
    model = tiny("all-minilm-l6-v2", f"embed_from={source}").eval()
    mask = torch.tensor(MASKS[side])
    found = model.sentence_vectors(tokens(), mask)
    assert (found.norm(dim=-1) - 1).abs().max() < 1e-5
    for row, real in enumerate(mask.bool()):
        alone = model.sentence_vectors(tokens()[row : row + 1, real])
        assert (found[row] - alone[0]).abs().max() < 1e-5
        assert (
            alone[0] - model.sentence_vectors(tokens()[row : row + 1])[0]
        ).abs().max() > 1e-4 or (real.all())


def test_texts_longer_than_the_table_are_refused():
    with pytest.raises(zoo.errors.ConfigError, match="41 tokens exceed the 40 positions"):
        tiny("roberta-base")(tokens(41))


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["pooler=false"], "next_sentence"),
        (["task=classify", "pooler=false", "next_sentence=false"], "classify_from"),
        (["task=guess"], "task"),
    ],
)
def test_heads_that_lack_something_are_refused(overrides, named):
    with pytest.raises(zoo.errors.ConfigError, match=named):
        tiny("bert-base-uncased", *overrides)


def test_weights_in_a_swapped_model_are_accounted_for(tmp_path):
    """Loading refuses what has no place; partial loading lists what is new."""
    zoo.save(tiny("bert-base-uncased"), tmp_path)
    with pytest.raises(zoo.errors.WeightsError, match="positions"):
        zoo.load(f"dir:{tmp_path}", "backbone.position=rope")
    model = zoo.load(f"dir:{tmp_path}", "backbone.feedforward=swiglu", partial=True)
    assert all("feedforward" in name for name in model.load_report.new)
    assert any("feedforward.up" in name for name in model.load_report.unused)
