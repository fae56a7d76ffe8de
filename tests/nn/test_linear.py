"""Layers whose weights are made only when asked for."""

import torch
from torch.nn import functional as F

from zoo.nn.linear import Embedding, Linear, fill_normal_


def test_linear_is_torch_linear():
    layer = Linear(5, 3)
    layer.reset_parameters()
    with torch.no_grad():
        layer.bias.normal_()
    x = torch.randn(2, 4, 5)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
    assert Linear(5, 3, bias=False).bias is None


def test_embedding_is_torch_embedding():
    layer = Embedding(7, 3)
    layer.reset_parameters()
    tokens = torch.tensor([[0, 6], [3, 3]])
    torch.testing.assert_close(layer(tokens), F.embedding(tokens, layer.weight))


def test_construction_draws_no_random_numbers():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Linear(64, 64), Embedding(64, 64)
    assert torch.equal(before, torch.get_rng_state())


def test_new_weights_are_normal_cut_at_two_deviations():
    weight = torch.empty(300, 300)
    fill_normal_(weight, 0.5)
    assert weight.abs().max() <= 1.0
    # the standard deviation of a normal distribution cut at two of its own is 0.8796
    torch.testing.assert_close(weight.std(), torch.tensor(0.5 * 0.8796), atol=0.003, rtol=0)
    assert weight.mean().abs() < 0.005


def test_a_bias_starts_at_zero():
    layer = Linear(8, 8)
    layer.reset_parameters()
    assert not layer.bias.any()
