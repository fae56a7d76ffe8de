"""Inference forms give the layer's numbers, and what they were made from where they promise to."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zoo
from tests.generation.conftest import make
from zoo.errors import ConfigError, WeightsError
from zoo.models.base import build_empty, initialise, save
from zoo.nn import forms, matmul, native
from zoo.nn.cache import DynamicCache
from zoo.nn.forms import freeze, prepare, quantise, refuse_inexact, thaw
from zoo.nn.linear import Linear
from zoo.nn.matmul import FUSED, activated
from zoo.registry import resolve

BOUND = {"packed": 5e-3, "int8": 3e-2, "int8-weight": 1.2e-2}  # relative error of one product
DTYPE = {"packed": torch.bfloat16, "int8": torch.float32, "int8-weight": torch.bfloat16}

needs_packing = pytest.mark.skipif(
    not forms._packs(), reason="this processor or PyTorch has no packed bf16 product"
)
NAMES = [pytest.param("packed", marks=needs_packing), "int8", "int8-weight"]


def layer(dtype, inputs=90, outputs=70, bias=True):
    torch.manual_seed(0)
    made = Linear(inputs, outputs, bias, std=0.1)
    made.reset_parameters()
    if bias:
        nn.init.normal_(made.bias)
    return made.to(dtype).eval()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1, 90), (3, 96), (2, 40, 96), (3, 128), (2, 40, 128)])
@pytest.mark.parametrize("activation", ["linear", *FUSED])
def test_products_are_those_of_the_weight(name, shape, activation):
    plain = layer(DTYPE[name], shape[-1])
    x = torch.randn(shape, dtype=DTYPE[name])
    exact = F.linear(x.double(), plain.weight.double(), plain.bias.double())
    exact = activated(exact, activation)
    with torch.inference_mode():
        found = freeze(copy.deepcopy(plain), name)(x, activation)
    assert found.dtype == x.dtype and found.shape == exact.shape
    assert (found.double() - exact).norm() / exact.norm() < BOUND[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_form_frees_the_weight_and_shows_it(name):
    plain = layer(DTYPE[name], bias=False)
    frozen = freeze(copy.deepcopy(plain), name)
    assert [n for n, _ in frozen.named_parameters()] == []
    assert frozen.form.nbytes <= plain.weight.nbytes
    error = (frozen.weight.float() - plain.weight.float()).norm() / plain.weight.float().norm()
    assert error == 0 if name == "packed" else error < 1e-2
    assert copy.deepcopy(frozen).form is frozen.form
    assert "90, 70, bias=False, " in repr(frozen)


@needs_packing
@pytest.mark.parametrize(
    "undo", [lambda m: m.train(), lambda m: m.float().bfloat16(), thaw, lambda m: m.to("cpu")]
)
def test_packing_undoes_itself_bit_for_bit(undo):
    plain = layer(torch.bfloat16)
    frozen = freeze(copy.deepcopy(plain), "packed")
    assert torch.equal(frozen.state_dict()["weight"], plain.weight)
    undo(frozen)
    assert isinstance(frozen._parameters["weight"], nn.Parameter)
    assert torch.equal(frozen.weight, plain.weight) and frozen.weight.requires_grad


@needs_packing
def test_new_weights_replace_a_packed_one():
    frozen, other = freeze(layer(torch.bfloat16), "packed"), layer(torch.bfloat16)
    with torch.no_grad():
        other.weight.neg_()
    frozen.load_state_dict(other.state_dict())
    x = torch.randn(2, 90, dtype=torch.bfloat16)
    torch.testing.assert_close(frozen(x), other(x))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_pass_through_a_frozen_layer(name):
    plain = layer(DTYPE[name])
    frozen = freeze(copy.deepcopy(plain), name)
    inputs = torch.randn(4, 90, dtype=DTYPE[name])
    found, expected = (inputs.clone().requires_grad_() for _ in range(2))
    frozen(found).square().sum().backward()
    plain(expected).square().sum().backward()
    error = (found.grad - expected.grad).float().norm() / expected.grad.float().norm()
    assert error < 2 * BOUND[name]


def test_packing_is_for_bf16_and_leaves_the_rest():
    assert freeze(layer(torch.float32), "packed").form is None


def test_a_row_of_zeros_stays_zero():
    plain = layer(torch.float32, bias=False)
    with torch.no_grad():
        plain.weight[3] = 0
    for name in ("int8", "int8-weight"):
        found = freeze(copy.deepcopy(plain), name)(torch.randn(2, 90))
        assert not found[:, 3].any() and torch.isfinite(found).all()


@pytest.mark.parametrize("name", ["int8", "int8-weight"])
def test_int8_is_neither_trained_nor_saved(name, tmp_path):
    model = freeze(make("llama"), name)
    with pytest.raises(ConfigError, match="int8 weights are for inference"):
        model.train()
    with pytest.raises(ConfigError, match="int8 weights are for inference"):
        model.to(torch.float64)
    with pytest.raises(WeightsError, match="is in int8; load it with dtype=fp32 or bf16 to save"):
        save(model, tmp_path)
    refuse_inexact(make("llama"))


@torch.no_grad()
def test_copies_serve_no_more_when_a_parameter_is_given_other_memory():
    layer = Linear(512, 512)
    layer.reset_parameters()
    x = torch.randn(1, 512, generator=torch.Generator().manual_seed(0))
    for name in ("weight", "bias"):
        layer.prepare(1)
        layer(x)
        parameter = getattr(layer, name)
        parameter.data = parameter.data + 1
        expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-4)


def test_numbers_and_scales():
    numbers, scale = quantise(torch.tensor([[1.0, -2.0, 0.5]]))
    assert numbers.tolist() == [[64, -127, 32]] and scale.tolist() == [[pytest.approx(2 / 127)]]


@pytest.mark.parametrize(("name", "error"), [("int8", 3e-2), ("int8-weight", 2e-2)])
@pytest.mark.parametrize("family", ["gpt", "llama"])
def test_a_model_in_int8_says_nearly_the_same(name, error, family):
    """Weights as they are initialised, and a tied head, which makes scores peak."""
    parts = {"llama": {"position": "rope", "norm": "rms", "feedforward": "swiglu"}}.get(family, {})
    backbone = {"depth": 4, "width": 128, "length": 256, "position": "learned", **parts}
    backbone["attention"] = {"heads": 4}
    mapping = {"kind": "causal-lm", "vocabulary": 512, "backbone": backbone}
    model = initialise(build_empty(resolve("model", mapping)), 0).eval()
    tokens = torch.randint(512, (16, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact = model(tokens).logits
        found = freeze(model.to(DTYPE[name]), name)(tokens).logits.float()
    assert (found - exact).norm() / exact.norm() <= error
    assert (found.argmax(-1) == exact.argmax(-1)).float().mean() >= 0.95


@pytest.mark.parametrize("tiles", [False, True])
def test_int8_takes_what_a_processor_is_best_at(tiles, monkeypatch):
    """Where it multiplies bf16 in tiles: whole windows as int8-weight, attention in bf16."""
    for module in ("forms", "kernel"):
        monkeypatch.setattr(f"zoo.nn.{module}.has_tiles", lambda: tiles)
    size = {"depth": 2, "width": 64, "attention": {"heads": 4}}
    sound = {"seconds": 4, "bins": 20}  # 200 tokens
    model = zoo.create("whisper-tiny", encoder={**size, "length": 200}, decoder=size, seed=0,
                       alignment_heads=[], sound=sound).eval()  # fmt: skip
    features = torch.randn(2, 20, 400, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[5, 9, 1, 7], [2, 2, 8, 9]])
    with torch.inference_mode():
        exact = model(features, tokens).logits
        freeze(model, "int8")
        whole = model(features, tokens).logits
        cache = DynamicCache()
        first = model.decode(tokens[:, :3], model.encode(features), cache=cache).logits
        last = model.decode(tokens[:, 3:], None, cache=cache).logits
    for found in (whole, torch.cat([first, last], 1)):
        assert (found - exact).norm() / exact.norm() <= 3e-2
    layer = model.decoder.layers[0].cross_attention
    kinds = [type(one.form).__name__ for one in (model.encoder.layers[1].attention.qkv, layer.kv)]
    assert kinds == ["Int8Weight" if tiles else "Int8"] * 2
    assert type(layer.q.form) is forms.Int8  # a token at a time
    assert cache.memory(0)[0].dtype == (torch.bfloat16 if tiles else torch.float32)


# -- packed copies beside fp32 weights -------------------------------------------------------------

beside = pytest.mark.skipif(
    not forms.Beside.serves(nn.Parameter(torch.empty(600, 600))),
    reason="this PyTorch has no oneDNN",
)


@pytest.fixture(params=["MKL at home", "MKL elsewhere"])
def many(request, monkeypatch):
    """Returns from how many rows on packed copies are made, on both kinds of processors."""
    monkeypatch.setattr(matmul, "_intel", lambda: request.param == "MKL at home")
    matmul._onednn.cache_clear()
    kind = forms.Packed if request.param == "MKL elsewhere" else forms.PackedByMKL
    yield kind.LEAST if kind is forms.Packed or matmul.has_mkl() else 1 << 30
    matmul._onednn.cache_clear()


@pytest.fixture(params=["compiled", "nothing compiled"])
def compiled(request, monkeypatch):
    """Returns whether the C of zoo.nn.native is there, and takes it away."""
    if request.param == "compiled":
        if native.library() is None:
            pytest.skip("no C compiler was found when zoo was installed")
        return True
    monkeypatch.setattr(native, "library", lambda: None)
    return False


def large(bias=True):
    torch.manual_seed(1)
    made = Linear(320, 1700, bias, std=0.1)
    made.reset_parameters()
    if bias:
        nn.init.normal_(made.bias)
    return made.eval()


@beside
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 65, 600])
@pytest.mark.parametrize("bias", [True, False])
def test_a_copy_beside_gives_the_weights_numbers_whatever_the_rows(rows, bias, many, compiled):
    made = large(bias)
    x = torch.randn(1, rows, 320)
    exact = F.linear(x.double(), made.weight.double(), made.bias.double() if bias else None)
    with torch.inference_mode():
        plain = made(x)
        prepare(made, rows)
        found = made(x, "relu")
        few = compiled and rows <= native.Panels.most(torch.float32)
        assert (made.beside.panels is not None) == few
        assert (made.beside.packed is not None) == (rows >= many and not few)
        prepare(made)
        alone = torch.cat([made(x[:, i : i + 1]) for i in range(rows)], dim=1)
    assert (made.beside.panels is not None) == compiled and plain.shape == found.shape
    assert (found - exact.relu()).norm() / exact.norm() < 1e-6
    assert (alone - exact).norm() / exact.norm() < 1e-6


@beside
def test_a_copy_beside_is_never_mistaken_for_a_weight_that_changed():
    made, x = large(), torch.randn(1, 1, 320)
    kept = made.weight
    with torch.inference_mode():
        prepare(made)
        before = made(x)
    assert made.weight is kept and [n for n, _ in made.named_parameters()] == ["weight", "bias"]
    assert copy.deepcopy(made).beside is None
    made(x).sum().backward()  # gradients reach the weight itself
    assert made.weight.grad is not None
    with torch.no_grad():
        made.weight.neg_()
        assert torch.allclose(made(x), F.linear(x, made.weight, made.bias), atol=1e-5)
        assert not torch.allclose(made(x), before, atol=1e-3)
    first = made.beside
    with torch.inference_mode():
        prepare(made)
    assert made.beside is not first and made.beside.weight is made.weight
    made.train()
    assert made.beside is None


@beside
def test_what_is_small_or_being_trained_gets_no_copy():
    with torch.inference_mode():
        small, trained = layer(torch.float32), large().train()
        prepare(small)
        prepare(trained)
    prepare(outside := large())  # gradients are being kept
    assert small.beside is trained.beside is outside.beside is None


@beside
def test_a_tied_head_follows_its_table(many):
    backbone = {"depth": 1, "width": 64, "position": "rope", "attention": {"heads": 4}}
    given = {"kind": "causal-lm", "vocabulary": 5000, "tied": True, "backbone": backbone}
    model = initialise(build_empty(resolve("model", given)), 0).eval()
    tokens = torch.tensor([[1, 2, 3, 4]])
    with torch.inference_mode():
        plain = model(tokens).logits
        for rows in (1, 4):
            prepare(model, rows)
            assert torch.allclose(model(tokens, last=True).logits, plain[:, -1:], atol=1e-5)
            assert torch.allclose(model(tokens).logits, plain, atol=1e-5)
        assert model.head.beside is not None
    with torch.no_grad():
        model.embedding.table.weight.mul_(2)
        changed = model(tokens).logits
        expected = copy.deepcopy(model)(tokens).logits
    assert torch.allclose(changed, expected, atol=1e-5)
    assert not torch.allclose(changed, plain, atol=1e-2)


@beside
def test_a_stack_that_reads_a_second_batch_lays_copies_beside_its_weights(many):
    given = {"kind": "masked-lm", "vocabulary": 50, "backbone": {"depth": 1, "width": 256}}
    given["backbone"] |= {"position": "rope", "attention": {"heads": 4}}
    model = initialise(build_empty(resolve("model", given)), 0).eval()
    tokens = torch.randint(50, (3, 7), generator=torch.Generator().manual_seed(0))
    up = model.backbone.layers[0].feedforward.up
    model(tokens), model(tokens)
    assert up.beside is None  # gradients were kept
    with torch.inference_mode():
        first = model(tokens).hidden
        assert up.beside is None
        second = model(tokens).hidden
        assert up.beside.panels is not None or (up.beside.packed is not None) == (many <= 21)
        assert torch.allclose(first, second, atol=1e-5)
        large = tokens.repeat(25, 1)  # 525 rows
        once, again = model(large).hidden, model(large).hidden
        assert torch.equal(once, again)
        assert torch.allclose(once[-3:], first, atol=1e-5)
        assert (up.beside.packed is not None) == (many <= 525)
        model.train()
        assert up.beside is None and model.backbone.reads == [0, 0]
        model.eval()(tokens)
        assert up.beside is None
    with torch.no_grad():
        up.weight.neg_()
        changed = model(tokens).hidden
    assert not torch.allclose(changed, first, atol=1e-3)


@beside
def test_what_is_ready_does_not_keep_the_rest_from_being_prepared():
    model = nn.Sequential(large(), Linear(1700, 320, std=0.1)).eval()
    model[1].reset_parameters()
    with torch.inference_mode():
        prepare(model[0], 17)
        kept = model[0].beside
        prepare(model, 17)
    assert model[0].beside is kept and model[1].beside is not None


@needs_packing
def test_a_packed_weight_gets_a_copy_for_few_rows(compiled):
    plain = layer(torch.bfloat16, 640, 320)
    frozen = freeze(copy.deepcopy(plain), "packed")
    x = torch.randn(5, 640, dtype=torch.bfloat16)
    exact = F.linear(x.double(), plain.weight.double(), plain.bias.double()).relu()
    with torch.inference_mode():
        prepare(frozen, forms.Packed.STEP + 1)
        assert frozen.form.panels is None
        prepare(frozen, 5)
        assert (frozen.form.panels is not None) == compiled
        found = frozen(x, "relu")
    assert found.dtype == torch.bfloat16
    assert (found.double() - exact).norm() / exact.norm() < BOUND["packed"]


@pytest.mark.parametrize("rows", [1, 3, 5, 9, 40])
def test_what_a_row_gets_in_int8_does_not_depend_on_those_beside_it(rows, compiled):
    frozen = freeze(layer(torch.float32, 192, 70), "int8")
    x = torch.randn(rows, 192) * torch.rand(rows, 1).exp()
    with torch.inference_mode():
        alone = torch.cat([frozen(row[None], "relu") for row in x])
        together = frozen(x, "relu")
        torch.testing.assert_close(frozen(x[0], "relu"), together[0])
    if compiled:
        assert torch.equal(alone, together)
    torch.testing.assert_close(alone, together)


def test_copies_are_made_only_where_memory_is_free(monkeypatch, compiled):
    made = large()
    monkeypatch.setattr(native, "free", lambda: made.weight.nbytes)
    with torch.inference_mode():
        before = made(torch.ones(1, 320))
        prepare(made)
        assert made.beside.panels is None
        torch.testing.assert_close(made(torch.ones(1, 320)), before)
