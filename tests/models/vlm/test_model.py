"""The vision-language model as a model: the common body of tests, pictures anywhere, every
adapter, every tower."""

# b rows, n given tokens

import pytest
import torch

import zoo
from tests.models.case import ModelCase
from tests.models.vlm.conftest import TINY
from zoo.errors import ConfigError, DataError
from zoo.models.vlm.expand import expand

MARK = -200


class TestVisionLanguage(ModelCase):
    node = "llava-1.5-7b"
    overrides = (*TINY, "image_token=-200", "layer=null")

    def inputs(self, model, batch):
        tokens = torch.randint(3, 259, (batch, 7))
        tokens[:, 2] = MARK
        return (tokens, torch.randn(batch, 3, 16, 16)), {}

    def answer(self, output):
        return output.logits

    def test_every_parameter_learns(self):
        """But for what the tower makes of a whole picture, which nobody reads."""
        model = self.make().train()
        positional, named = self.draw(model, 3)
        model(*positional, **named).logits.float().square().mean().backward()
        idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert all(name.startswith("vision.pool.") for name in idle), idle


ADAPTERS = {
    "linear": 16,
    "linear, pooled": ("adapter={name: linear, pool: 2}", 4),
    "mlp": 16,
    "pixel-shuffle": 4,
    "shuffled and normed": ("adapter={name: pixel-shuffle, factor: 4, norm: layer}", 1),
    "resampler": ("adapter={name: resampler, queries: 5, backbone: {width: 12, attention: "
                  "{heads: 2}, cross_attention: {heads: 2}}}", 5),
}  # fmt: skip


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_decides_how_many_tokens_a_picture_is(tiny, name):
    asked = ADAPTERS[name]
    override, count = (f"adapter={name}", asked) if isinstance(asked, int) else asked
    model = tiny(override, "image_token=-200")
    seen = model.see(torch.randn(3, 3, 16, 16))
    assert [tuple(tokens.shape) for tokens in seen] == [(count, 24)] * 3
    model(torch.tensor([[5, MARK, 6]]), torch.randn(1, 3, 16, 16)).logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.adapter.parameters())


@pytest.mark.parametrize(
    ("override", "patches"),
    [
        ("vision=vit-digits", 64),
        ("vision={name: siglip-base-16, backbone: {depth: 1}, tokenizer: {image: [32, 32]}}", 4),
        ("vision={name: clip-vit-base-32, backbone: {depth: 1}, tokenizer: {image: [64, 64]}}", 4),
        ("vision=timm/test_vit", 100),
        ("vision=timm/test_resnet", 25),
    ],
)
def test_any_tower_stands_there(tiny, override, patches):
    model = tiny(override, "layer=-1", "image_token=-200")
    tower = model.vision.tokenizer.config
    pixels = torch.randn(1, tower.channels, *tower.image)
    out = model(torch.tensor([[5, MARK, 6]]), pixels)
    assert out.picture.sum() == patches == model.vision.patch_shape(-1)[0]
    assert model.vision.patch_grid(*tower.image)[0] ** 2 == patches


@pytest.mark.parametrize("name", ["gpt2", "bloom-560m", "falcon-7b", "mpt-7b"])
def test_any_decoder_stands_there(tiny, name):
    small = "backbone: {depth: 1, width: 32, attention: {heads: 4}}"
    model = tiny(f"text={{name: {name}, vocabulary: 70, {small}}}", "image_token=-200")
    tokens = torch.tensor([[5, MARK, 6, 7], [8, 9, 10, 11]])
    pixels = torch.randn(1, 3, 16, 16)
    found = model(tokens, pixels)
    alone = model.text(tokens[1:]).logits[0]
    real = found.mask[1]
    assert (found.logits[1, real] - alone).abs().max() <= 1e-5 * alone.abs().max()


def test_a_model_that_sees_nothing_is_no_tower(tiny):
    with pytest.raises(ConfigError, match="vision: 'masked-lm' models see no pictures"):
        tiny("vision={name: bert-base-uncased, backbone: {depth: 1, width: 12}}")
    with pytest.raises(ConfigError, match=r"text.*cannot stand here"):
        zoo.config("llava-1.5-7b", "text=bert-base-uncased")


# -- pictures anywhere -----------------------------------------------------------------------------

ROWS = [
    [5, 6, 7],
    [MARK, 5],
    [5, MARK, MARK, 6, MARK],
    [5, 6, MARK],
]


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_a_batch_with_any_number_of_pictures_is_its_rows(model, side):
    longest = max(map(len, ROWS))
    tokens, mask = torch.full((4, longest), 9), torch.zeros(4, longest, dtype=torch.bool)
    for row, ids in enumerate(ROWS):
        place = slice(longest - len(ids), None) if side == "left" else slice(0, len(ids))
        tokens[row, place], mask[row, place] = torch.tensor(ids), True
    pixels = torch.randn(5, 3, 16, 16)
    together = model(tokens, pixels, mask)
    start = 0
    for row, ids in enumerate(ROWS):
        count = ids.count(MARK)
        alone = model(torch.tensor([ids]), pixels[start : start + count] if count else None)
        start += count
        real = together.mask[row]
        assert int(real.sum()) == len(ids) + 15 * count
        assert (real[0] if side == "right" else real[-1]) or len(ids) == longest
        found = together.logits[row, real]
        assert (found - alone.logits[0]).abs().max() <= 1e-5 * alone.logits.abs().max()
        places = tokens.flatten()[together.source[row, real]]
        assert places.tolist() == [i for i in ids for _ in range(16 if i == MARK else 1)]


@pytest.mark.parametrize("position", ["rope", "{name: learned, length: 60}", "alibi"])
@pytest.mark.parametrize("size", [20, 56, 200])
@torch.no_grad()
def test_packed_rows_are_what_they_are_alone(tiny, size, position):
    model = tiny(f"text.backbone.position={position}", "image_token=-200")
    longest = max(map(len, ROWS))
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in ROWS])
    tokens = torch.tensor([ids + [9] * (longest - len(ids)) for ids in ROWS])
    pixels = torch.randn(5, 3, 16, 16)
    apart, packed = model(tokens, pixels, mask), model(tokens, pixels, mask, pack=size)
    assert packed.mask.shape[0] == {20: 3, 56: 2, 200: 1}[size]
    assert packed.mask.shape[1] <= max(size, 50)

    def by_place(out):
        order = out.source[out.mask].argsort(stable=True)
        return out.logits[out.mask][order]

    difference = (by_place(packed) - by_place(apart)).abs().max()
    assert difference <= 1e-5 * by_place(apart).abs().max()


def test_gradients_reach_the_pictures(model):
    pixels = torch.randn(2, 3, 16, 16, requires_grad=True)
    model(torch.tensor([[5, MARK, 6, MARK, 7]]), pixels).logits[0, -1].square().mean().backward()
    assert pixels.grad.flatten(1).abs().amax(1).gt(0).all()


@pytest.mark.parametrize(
    ("marks", "pictures", "words"),
    [
        (2, 1, "2 <image> marks and 1 picture was given"),
        (1, 2, "1 <image> mark and 2 pictures were given"),
        (0, 1, "no <image> marks and 1 picture was given"),
        (1, 0, "1 <image> mark and no pictures were given"),
    ],
)
def test_pictures_and_marks_are_counted(marks, pictures, words):
    tokens = torch.tensor([[MARK] * marks + [5] * (3 - marks)])
    seen = [torch.zeros(4, 6)] * pictures
    with pytest.raises(DataError, match=words):
        expand(tokens, torch.zeros(1, 3, 6), tokens == MARK, seen)


def test_what_does_not_divide_is_refused(tiny):
    model = tiny("adapter={name: pixel-shuffle, factor: 3}")
    with pytest.raises(ConfigError, match=r"adapter.factor: 4 x 4 patches do not divide into"):
        model.see(torch.randn(1, 3, 16, 16))
    model = tiny("adapter={name: pixel-shuffle}", "class_token=true")
    with pytest.raises(ConfigError, match="class_token: a pixel shuffle"):
        model.see(torch.randn(1, 3, 16, 16))
