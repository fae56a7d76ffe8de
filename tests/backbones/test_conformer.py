"""The Conformer's block as a formula over its parts; relative attention in blocks; padding."""

import pytest
import torch

from zoo.errors import ConfigError
from zoo.models.base import initialise
from zoo.nn import relative
from zoo.nn.attention import Context, Record
from zoo.nn.mask import Mask
from zoo.registry import build, resolve

WIDTH = 16


def make(**keys):
    node = {
        "name": "conformer",
        "depth": 2,
        "width": WIDTH,
        "attention": {"heads": 2},
        "convolution": {"kernel": 5},
        **keys,
    }
    stack = initialise(build(resolve("backbone", node)), 0)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return stack.double().eval()


@pytest.fixture
def x():
    return torch.randn(2, 11, WIDTH, generator=torch.Generator().manual_seed(0)).double()


def test_a_block_is_the_paper_s(x):
    layer = make().layers[0]
    y = x + 0.5 * layer.feedforward(layer.feedforward_norm(x))
    y = y + layer.attention(layer.attention_norm(y), Context())
    y = y + layer.convolution(layer.convolution_norm(y))
    y = y + 0.5 * layer.feedforward_2(layer.feedforward_2_norm(y))
    assert torch.allclose(layer(x, Context()), layer.block_norm(y))


def test_both_factors_of_a_sum_count(x):
    factors = {"feedforward": [1.5, 0.5], "convolution": [2.0, 1.0]}
    layer = make(residual=factors).layers[0]
    y = 1.5 * x + 0.5 * layer.feedforward(layer.feedforward_norm(x))
    y = y + layer.attention(layer.attention_norm(y), Context())
    y = 2.0 * y + layer.convolution(layer.convolution_norm(y))
    y = 1.5 * y + 0.5 * layer.feedforward_2(layer.feedforward_2_norm(y))
    assert torch.allclose(layer(x, Context()), layer.block_norm(y))


@pytest.mark.parametrize("position", ["transformer-xl", "rope", "sinusoidal", "none"])
def test_padding_changes_no_real_token(position):
    if position == "transformer-xl":
        position = {"name": position, "layout": "interleaved"}
    stack = make(position=position).float()
    for extra in (1, 30):
        x = torch.randn(1, 9, WIDTH)
        padded = torch.cat([x, 30 * torch.randn(1, extra, WIDTH)], 1)
        real = torch.arange(9 + extra)[None] < 9
        found = stack(padded, mask=Mask(padding=real))[:, :9]
        assert (found - stack(x)).abs().max() <= 1e-5


@pytest.mark.parametrize(
    "mask",
    [
        Mask(),
        Mask(causal=True),
        Mask(window=4),
        Mask(window=3, causal=True),
        Mask(padding=torch.arange(11)[None] < torch.tensor([[11], [6]])),
        Mask(window=5, padding=torch.arange(11)[None] < torch.tensor([[11], [6]])),
    ],
)
@pytest.mark.parametrize("kernel", ["sdpa", "plain"])
def test_attention_in_blocks_is_attention(x, mask, kernel, monkeypatch):
    attention = make(attention={"heads": 2, "kernel": kernel}).layers[0].attention
    watched = Context(mask, record=Record(attention=True))  # which asks for all weights at once
    whole = attention(x, watched)
    at_once = attention(x, Context(mask))
    monkeypatch.setattr(relative, "BLOCK_SCORES", 2 * 2 * 22 * 3)
    in_blocks = attention(x, Context(mask))
    assert torch.allclose(at_once, whole) and torch.allclose(in_blocks, whole)


def test_blocks_have_the_gradients_of_the_whole(x, monkeypatch):
    attention = make().layers[0].attention
    attention(x, Context()).square().sum().backward()
    whole = {name: p.grad.clone() for name, p in attention.named_parameters()}
    attention.zero_grad()
    monkeypatch.setattr(relative, "BLOCK_SCORES", 300)
    attention(x, Context()).square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert torch.allclose(parameter.grad, whole[name]), name


def test_a_window_reaches_no_further():
    attention = make(attention={"heads": 2, "window": 3}).layers[0].attention
    x = torch.randn(1, 20, WIDTH).double().requires_grad_()
    attention(x, Context())[0, 10].sum().backward()
    assert x.grad[0].abs().sum(-1).nonzero().flatten().tolist() == [8, 9, 10, 11, 12]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"convolution": None}, "convolution: `order` names one"),
        ({"order": ["attention", "attention"]}, "attention can stand in a block only once"),
        ({"residual": {"attention": [1.0]}}, "needs two factors"),
        ({"order": ["attention"]}, "'feedforward' is none of the sublayers"),
        ({"parallel": True}, "its branches add up plainly"),
    ],
)
def test_what_cannot_be_is_refused(keys, words):
    with pytest.raises(ConfigError, match=words):
        make(**keys)
