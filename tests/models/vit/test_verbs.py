"""What a vision model does with raw pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.errors import ConfigError, DataError
from zoo.nn.attention import Record


@pytest.fixture(scope="module")
def model():
    return zoo.create("vit-digits", "registers=2", "backbone.position=learned-grid", seed=0).eval()


def drawn(count: int = 3, size: int = 40) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return list(generator.integers(0, 256, (count, size, size + 5), dtype=np.uint8))


@torch.no_grad()
def test_classify(model) -> None:
    pictures = drawn()
    answers = model.classify(pictures, top=3)
    probabilities = model(model.tokenizer.preprocess(pictures)).logits.softmax(-1)
    for row, answer in zip(probabilities, answers, strict=True):
        assert [p.index for p in answer] == row.argsort(descending=True)[:3].tolist()
        assert [p.probability for p in answer] == pytest.approx(row.sort()[0].flip(0)[:3].tolist())
        assert all(p.label == str(p.index) for p in answer)
    assert str(answers[0][0]) == f"{answers[0][0].label} ({answers[0][0].probability:.1%})"


def test_one_picture_gives_one_answer(model) -> None:
    picture = drawn(1)[0]
    one, several = model.classify(picture), model.classify([picture])
    assert several == [one] and len(one) == 5
    assert len(model.classify(picture, top=99)) == 10
    with pytest.raises(ConfigError, match="top: must be at least 1, got 0"):
        model.classify(picture, top=0)
    assert model.embed(picture).shape == (96,) and model.embed([picture]).shape == (1, 96)
    assert model.attention_maps(picture).shape == (4, 8, 8)
    assert model.attention_maps([picture]).shape == (1, 4, 8, 8)


def test_every_source_gives_the_same_answer(model, tmp_path) -> None:
    values = drawn(1)[0]
    Image.fromarray(values).save(tmp_path / "a.png")
    sources = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        (tmp_path / "a.png").read_bytes(),
        Image.fromarray(values),
        values,
        torch.from_numpy(values),
        values / 255,
    ]
    features = model.embed(sources)
    assert torch.equal(features, features[:1].expand_as(features))
    assert torch.equal(model.embed(np.stack([values, values])[..., None]), features[:2])


def test_batches_do_not_show(model) -> None:
    pictures = drawn(5)
    torch.testing.assert_close(model.embed(pictures, batch_size=2), model.embed(pictures))
    assert model.classify(pictures, batch_size=2, top=1)[4][0].index == (
        model.classify(pictures[4], top=1)[0].index
    )


def test_verbs_leave_the_model_as_it_was(model) -> None:
    model.train()
    first = model.embed(drawn())
    assert model.training
    model.eval()
    assert torch.equal(first, model.embed(drawn())) and not model.training
    assert not first.requires_grad and first.dtype == torch.float32
    model.train()
    with pytest.raises(DataError):
        model.embed("no/such/file.png")
    assert model.training
    model.eval()


def test_half_precision_answers_in_full() -> None:
    half = zoo.create("vit-digits", seed=0, dtype="bf16")
    assert half.embed(drawn(1)[0]).dtype == torch.float32
    assert sum(p.probability for p in half.classify(drawn(1)[0], top=10)) == pytest.approx(1)


@torch.no_grad()
@pytest.mark.parametrize("layer", [-1, 1])
def test_attention_maps_are_a_plain_softmax(model, layer) -> None:
    pictures = drawn()
    depth = model.config.backbone.depth
    index = layer % depth
    record = Record(layers=frozenset({index - 1}))
    model(model.tokenizer.preprocess(pictures), record=record)
    block = model.backbone.layers[index]
    attention = block.attention
    qkv = attention.qkv(block.attention_norm(record.hidden[index - 1]))
    q, k, _ = (x.unflatten(-1, (4, -1)).transpose(1, 2) for x in qkv.chunk(3, dim=-1))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)  # b h n n
    expected = weights[:, :, 0, 3:].unflatten(-1, (8, 8))
    torch.testing.assert_close(model.attention_maps(pictures, layer=layer), expected)
    assert model.attention_maps(pictures).sum((-1, -2)).max() <= 1


def test_attention_maps_without_a_class_token() -> None:
    model = zoo.create("vit-digits", "class_token=false", "pool=mean", seed=0)
    found = model.attention_maps(drawn(1)[0])
    torch.testing.assert_close(found.sum((-1, -2)), torch.ones(4))


def test_what_a_model_cannot_do(model) -> None:
    with pytest.raises(ConfigError, match="no classes"):
        zoo.create("vit-digits", "classes=0", "labels=[]", seed=0).classify(drawn(1)[0])
    with pytest.raises(ConfigError, match="none of the 4 blocks"):
        model.attention_maps(drawn(1)[0], layer=4)
    with pytest.raises(DataError, match="no picture in the list"):
        model.embed([])


def test_patch_shape_is_asked_of_the_model(model) -> None:
    assert model.patch_shape() == (64, 96)
    empty = zoo.create("vit-digits", "tokenizer.image=[64,32]", device="meta")
    assert empty.patch_shape(-2) == (128, 96)
