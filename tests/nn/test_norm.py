"""Norms against their defining formulas and torch."""

import copy

import pytest
import torch
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.models.base import initialise
from zoo.nn.norm import build_norm
from zoo.registry import build, resolve

WIDTH = 24


def make(value, width=WIDTH, seed=0):
    norm = build(resolve("norm", value), width=width)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return norm.double()


@pytest.fixture
def x():
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1)).double() * 3 + 1


def test_layer_is_the_formula_and_torch(x):
    norm = make({"name": "layer", "eps": 0.1})
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    expected = (x - mean) / (variance + 0.1).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(norm(x), F.layer_norm(x, (WIDTH,), norm.weight, norm.bias, 0.1))


def test_layer_without_bias(x):
    norm = make({"name": "layer", "bias": False})
    assert norm.bias is None
    assert [name for name, _ in norm.named_parameters()] == ["weight"]
    torch.testing.assert_close(norm(x), F.layer_norm(x, (WIDTH,), norm.weight, None, 1e-5))


def test_rms_is_the_formula(x):
    norm = make({"name": "rms", "eps": 0.1})
    expected = x / (x.square().mean(-1, keepdim=True) + 0.1).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), expected)
    assert [name for name, _ in norm.named_parameters()] == ["weight"]


def test_rms_in_bf16_takes_the_mean_square_in_fp32():
    # In bf16 itself 4096 squares of 1 would sum to 256, where adding 1 changes nothing any more.
    norm = make("rms", width=4096)
    with torch.no_grad():
        norm.weight.fill_(1.0)
    ones = torch.ones(1, 4096, dtype=torch.bfloat16)
    torch.testing.assert_close(norm.bfloat16()(ones), ones)


def test_rms_in_bf16_is_the_formula_however_many_rows():
    norm = make({"name": "rms", "eps": 0.1}, width=4096).bfloat16()
    x = torch.randn(2, 35, 4096, generator=torch.Generator().manual_seed(2)).bfloat16()
    kept, wide = x.clone(), x.float()
    expected = wide / (wide.square().mean(-1, keepdim=True) + 0.1).sqrt() * norm.weight.float()
    with torch.no_grad():
        torch.testing.assert_close(norm(x), expected.bfloat16())
    assert torch.equal(x, kept)


def test_scale_is_one_number_times_the_unit_vector(x):
    norm = make("scale")
    assert norm.scale.shape == ()
    torch.testing.assert_close(norm(x), norm.scale * x / x.norm(dim=-1, keepdim=True))
    # below eps the length is not divided by
    torch.testing.assert_close(norm(x * 1e-9), norm.scale * x * 1e-9 / 1e-5)


def test_scale_starts_at_the_root_of_the_width(x):
    norm = build(resolve("norm", "scale"), width=WIDTH)
    norm.reset_parameters()
    torch.testing.assert_close(norm.scale, torch.tensor(WIDTH**0.5))
    # so new weights give vectors of the length that a layer norm gives
    length = norm.double()(x).norm(dim=-1)
    torch.testing.assert_close(length, torch.full_like(length, WIDTH**0.5))


@pytest.mark.parametrize("name", ["layer", "rms", "scale"])
def test_keeps_shape_and_dtype(name):
    norm = build(resolve("norm", name), width=WIDTH)
    norm.reset_parameters()
    x = torch.randn(3, WIDTH)
    assert norm(x).shape == x.shape
    low = norm.bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), norm.float()(x), atol=0.05, rtol=0.02)


@pytest.mark.parametrize("name", ["layer", "rms", "scale"])
def test_ignores_the_length_of_its_input(name, x):
    norm = make({"name": name, "eps": 1e-12})
    torch.testing.assert_close(norm(7.5 * x), norm(x))


def test_response_weighs_channels_by_their_length_over_the_tokens(x):
    norm = make({"name": "response", "eps": 0.1})
    length = x.square().sum(1).sqrt()  # b d
    response = length / (length.mean(-1, keepdim=True) + 0.1)
    expected = torch.einsum("d,bnd,bd->bnd", norm.weight, x, response) + norm.bias + x
    torch.testing.assert_close(norm(x), expected)
    fresh = initialise(build(resolve("norm", "response"), width=WIDTH)).double()
    assert torch.equal(fresh(x), x)


@pytest.mark.parametrize("inner", ["layer", "rms", None])
def test_adaptive_scales_and_shifts_as_the_vector_says(x, inner):
    config = resolve("norm", {"name": "adaptive", "norm": inner})
    norm = initialise(build_norm(config, WIDTH, 7)).double()
    told = torch.randn(2, 7, generator=torch.Generator().manual_seed(2)).double()
    plain = x if inner is None else norm.norm(x)
    assert torch.equal(norm(x, told), plain)  # until it learns
    with torch.no_grad():
        norm.map.weight.normal_(), norm.map.bias.normal_()
    scale, shift = F.linear(F.silu(told), norm.map.weight, norm.map.bias).split(WIDTH, -1)
    for row in range(2):
        expected = plain[row] * (1 + scale[row]) + shift[row]
        torch.testing.assert_close(norm(x, told)[row], expected)


def test_adaptive_norms_need_a_vector(x):
    with pytest.raises(ConfigError, match="told a vector; none is here"):
        build(resolve("norm", "adaptive"), width=WIDTH)
    with pytest.raises(ConfigError, match=r"read a vector \(b e\)"):
        build_norm(resolve("norm", "adaptive"), WIDTH, 7)(x.float(), None)
    with pytest.raises(ConfigError, match="stands around a plain one"):
        resolve("norm", {"name": "adaptive", "norm": {"name": "adaptive"}})


def test_rms_of_many_bf16_rows_is_fp32s_rounded_once():
    x = torch.randn(3, 5, 64).bfloat16()
    norm = make({"name": "rms", "eps": 0.1}, width=64).bfloat16()
    with torch.no_grad():
        norm.weight.normal_()
        wide = copy.deepcopy(norm).float()(x.float())
        assert torch.equal(norm(x), wide.bfloat16())
        assert (torch.rms_norm(x, (64,), norm.weight, 0.1) - norm(x)).abs().max() <= 0.02


def test_rms_of_one_row_is_that_of_many():
    torch.manual_seed(0)
    norm = make("rms", 48).float()
    x = torch.randn(1, 5, 48)
    expected = F.rms_norm(x, (48,), norm.weight, norm.eps)
    with torch.inference_mode():
        rows = torch.cat([norm(x[:, i : i + 1]) for i in range(5)], dim=1)
        many, small = norm(x), norm(x * 1e-4)
    assert torch.allclose(rows, expected, atol=1e-6)
    assert torch.allclose(many, expected, atol=1e-6)
    assert torch.allclose(small, F.rms_norm(x * 1e-4, (48,), norm.weight, norm.eps), atol=1e-6)
    row = x[:, :1].clone().requires_grad_()
    norm(row).sum().backward()  # with gradients it is PyTorch's own
    assert row.grad is not None and norm.weight.grad is not None
