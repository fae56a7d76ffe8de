"""The vision transformer through the body of tests that every model passes, in its variants."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import zoo
from tests.models.case import ModelCase
from zoo.errors import ConfigError, DataError
from zoo.nn.attention import Record

POSITIONS = ["learned", "learned-grid", "sinusoidal", "rope", "rope-grid", "alibi", "none"]


class TestVisionTransformer(ModelCase):
    node = "vit-digits"

    def inputs(self, model, batch):
        return (torch.randn(batch, model.config.tokenizer.channels, 32, 32),), {}

    def answer(self, output):
        return output.pooled if output.logits is None else output.logits


class TestDinoStyle(TestVisionTransformer):
    """Registers, layer scale, gated feed-forward, a mask token, class and mean side by side."""

    overrides = (
        "registers=3",
        "mask_token=true",
        "backbone.layer_scale=0.5",
        "backbone.feedforward={name: swiglu, hidden: 40}",
        "pool=class-mean",
    )

    def inputs(self, model, batch):
        (pixels,), _ = super().inputs(model, batch)
        return (pixels,), {"masked": torch.rand(batch, 64) < 0.4}


class TestSiglipStyle(TestVisionTransformer):
    """A learned query instead of a class token."""

    overrides = ("class_token=false", "pool=attention", "backbone.feedforward.activation=gelu_tanh")


class TestClipStyle(TestVisionTransformer):
    """A norm before the first block, one after pooling, a projection, no head."""

    overrides = (
        "backbone.embedding_norm=true",
        "backbone.final_norm=false",
        "tokenizer.bias=false",
        "pool_norm=true",
        "projection=24",
        "classes=0",
        "labels=[]",
    )


class TestDistilled(TestVisionTransformer):
    overrides = ("distillation_token=true",)

    def every_output(self, output):
        return output.logits.square().mean() + output.distillation_logits.square().mean()


def digits(*overrides, **options):
    return zoo.create("vit-digits", *overrides, **{"seed": 0, **options}).eval()


def pixels(batch: int = 2, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randn(batch, 1, height, width, generator=torch.Generator().manual_seed(7))


# -- outputs ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_shapes_of_all_outputs() -> None:
    out = digits("registers=2")(pixels())
    assert out.hidden.shape == (2, 1 + 2 + 64, 96)
    assert out.pooled.shape == (2, 96) and out.logits.shape == (2, 10)
    assert out.distillation_logits is None
    assert digits("classes=0", "labels=[]")(pixels()).logits is None


@torch.no_grad()
def test_pools() -> None:
    def pooled(*overrides):
        out = digits(*overrides)(pixels())
        return out.pooled, out.hidden

    found, hidden = pooled()
    assert torch.equal(found, hidden[:, 0])
    found, hidden = pooled("pool=mean", "registers=2")
    assert torch.equal(found, hidden[:, 3:].mean(1))
    found, hidden = pooled("pool=class-mean", "registers=2")
    assert torch.equal(found, torch.cat([hidden[:, 0], hidden[:, 3:].mean(1)], -1))
    found, hidden = pooled("projection=5", "projection_activation=tanh", "projection_bias=true")
    assert found.shape == (2, 5) and found.abs().max() <= 1


@torch.no_grad()
def test_the_attention_pool_is_attention() -> None:
    model = digits("pool=attention", "registers=2", "class_token=false")
    latent, hidden = model.pool.latent, model(pixels()).hidden[:, 2:]
    attention, heads = latent.attention, model.config.backbone.attention.heads
    q = F.linear(latent.query, attention.q.weight, attention.q.bias).expand(2, 1, -1)
    k, v = F.linear(hidden, attention.kv.weight, attention.kv.bias).chunk(2, -1)
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
    y = attention.out((weights @ v).transpose(1, 2).flatten(2))
    expected = (y + latent.feedforward(latent.norm(y)))[:, 0]
    torch.testing.assert_close(model(pixels()).pooled, expected)


@torch.no_grad()
def test_distillation() -> None:
    model = digits("distillation_token=true")
    out = model(pixels())
    own = model.head(out.pooled)
    torch.testing.assert_close(out.logits, (own + out.distillation_logits) / 2)
    model.train()
    out = model(pixels())
    torch.testing.assert_close(out.logits, model.head(out.pooled))


@torch.no_grad()
def test_masked_patches_are_the_mask_token() -> None:
    model = digits("mask_token=true")
    everything = torch.ones(2, 64, dtype=torch.bool)
    out = model(pixels(), masked=everything)
    assert torch.equal(out.logits[0], out.logits[1])  # nothing of the pictures is left
    assert torch.equal(model(pixels(), masked=~everything).logits, model(pixels()).logits)
    with pytest.raises(ConfigError, match="mask_token"):
        digits()(pixels(), masked=everything)


# -- sizes -----------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("position", POSITIONS)
def test_other_sizes(position) -> None:
    model = digits(f"backbone.position={position}")
    if position == "learned":
        with pytest.raises(ConfigError, match="positions"):
            model(pixels(2, 64, 48))
        return
    out = model(pixels(2, 64, 48))
    assert out.hidden.shape == (2, 1 + 16 * 12, 96)


def test_pixels_that_do_not_fit() -> None:
    model = digits()
    with pytest.raises(DataError, match="does not divide"):
        model(pixels(1, 30, 32))
    with pytest.raises(DataError, match=r"got \(1, 3, 32, 32\)"):
        model(torch.zeros(1, 3, 32, 32))
    with pytest.raises(DataError, match="Expected pixels"):
        model(torch.zeros(32, 32))


@torch.no_grad()
def test_patch_tokens() -> None:
    model = digits("registers=2", "distillation_token=true")
    depth = model.config.backbone.depth
    record = Record(layers=frozenset(range(depth)))
    out = model(pixels(), record=record)
    assert torch.equal(model.patch_tokens(pixels()), out.hidden[:, 4:])
    for layer in range(-depth, depth):
        expected = record.hidden[layer % depth][:, 4:]
        assert torch.equal(model.patch_tokens(pixels(), layer), expected)
    last = model.backbone.final_norm(record.hidden[depth - 1])
    torch.testing.assert_close(last, out.hidden)
    for wrong in (depth, -depth - 1):
        with pytest.raises(ConfigError, match="none of the 4 blocks"):
            model.patch_tokens(pixels(), wrong)


# -- parts -----------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("position", POSITIONS)
def test_kernels_agree(position) -> None:
    fast = digits(f"backbone.position={position}")
    plain = digits(f"backbone.position={position}", "backbone.attention.kernel=plain")
    plain.load_state_dict(fast.state_dict())
    torch.testing.assert_close(fast(pixels()).logits, plain(pixels()).logits, rtol=0, atol=1e-5)


PARTS = [
    *(f"backbone.position={name}" for name in POSITIONS),
    *(f"backbone.norm={name}" for name in ("rms", "scale")),
    *(f"backbone.feedforward={name}" for name in ("swiglu", "geglu", "reglu", "glu", "bilinear")),
    *(f"backbone.placement={name}" for name in ("pre", "post", "both", "none")),
    "backbone.attention={heads: 4, kv_heads: 1}",
    "backbone.attention={heads: 4, head_dim: 16, qk_norm: rms}",
    "backbone.attention.window=5",
    "backbone.parallel=true",
    "backbone.checkpoint=true",
]


@pytest.mark.parametrize("part", PARTS)
def test_every_swapped_part_trains(part) -> None:
    model = digits(part).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    labels = torch.tensor([3, 5])
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(model(pixels()).logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@torch.no_grad()
def test_layer_scale_scales_both_branches() -> None:
    model = digits("backbone.layer_scale=0.25")
    plain = digits()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "_scale." not in k})
    block, reference = model.backbone.layers[0], plain.backbone.layers[0]
    assert torch.equal(block.attention_scale.weight, torch.full((96,), 0.25))
    for branch in ("attention", "feedforward"):
        out = {"attention": "out", "feedforward": "down"}[branch]
        getattr(getattr(reference, branch), out).weight.mul_(0.25)
        getattr(getattr(reference, branch), out).bias.mul_(0.25)
    records = [Record(layers=frozenset({0})) for _ in range(2)]
    model(pixels(), record=records[0])
    plain(pixels(), record=records[1])
    torch.testing.assert_close(records[0].hidden[0], records[1].hidden[0])


def test_drop_path_skips_samples_in_training_only() -> None:
    model = digits("backbone.drop_path=0.9")
    rates = [layer.drop_path for layer in model.backbone.layers]
    assert rates == pytest.approx([0.0, 0.3, 0.6, 0.9])
    still = digits()
    still.load_state_dict(model.state_dict())
    assert torch.equal(model(pixels()).logits, still(pixels()).logits)
    model.train()
    torch.manual_seed(0)
    records = [Record(layers=frozenset({2, 3})) for _ in range(20)]
    for record in records:
        model(pixels(), record=record)
    skipped = [torch.equal(r.hidden[2][i], r.hidden[3][i]) for r in records for i in range(2)]
    assert 0.6 < sum(skipped) / len(skipped) < 0.98  # both sublayers of the last block: 0.81


@torch.no_grad()
def test_record_costs_nothing_and_changes_nothing() -> None:
    model = digits()
    record = Record(attention=True, layers=frozenset({-1, 0, 3}))
    assert torch.equal(model(pixels(), record=record).logits, model(pixels()).logits)
    assert sorted(record.hidden) == [-1, 0, 3] and sorted(record.weights) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        ("reads the class token", ["class_token=false"]),
        ("reads the class token", ["class_token=false", "pool=class-mean"]),
        ("beside a class token", ["distillation_token=true", "class_token=false", "pool=mean"]),
        ("1 names for 10 classes", ["labels=[a]"]),
        ("no multiple", ["tokenizer.image=[30,32]"]),
        ("size: width 34", ["tokenizer.size=[36,34]"]),
        ("among 7 heads", ["pool=attention", "backbone.attention={heads: 7, head_dim: 8}"]),
        ("'pool'|pool: must be one of", ["pool=middle"]),
        ("registers: must be at least 0", ["registers=-1"]),
    ],
)
def test_contradictions_are_refused(words, overrides) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        digits(*overrides)
    assert "\n" not in str(error.value)
