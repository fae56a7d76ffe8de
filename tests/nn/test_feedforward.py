"""Feed-forwards against their defining formulas: the MLP and the whole GLU family."""

import math

import pytest
import torch
from torch.nn import functional as F

from zoo.nn.feedforward import ACTIVATIONS
from zoo.registry import build, resolve

WIDTH, HIDDEN = 6, 10


def make(value, **keys):
    layer = build(resolve("feedforward", value), width=WIDTH, **keys)
    for module in layer.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    return layer.double()


@pytest.fixture
def x():
    return torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(0)).double()


FORMULAS = {
    "relu": lambda x: x.clamp(min=0),
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: (
        0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "quick_gelu": lambda x: x / (1 + torch.exp(-1.702 * x)),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "tanh": lambda x: (torch.exp(2 * x) - 1) / (torch.exp(2 * x) + 1),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "relu_squared": lambda x: torch.where(x > 0, x * x, 0 * x),
    "linear": lambda x: x,
}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activation_is_its_formula(name):
    x = torch.linspace(-5, 5, 101, dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name](x), FORMULAS[name](x))


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_mlp(name, x):
    layer = make({"name": "mlp", "activation": name, "hidden": HIDDEN})
    inner = FORMULAS[name](x @ layer.up.weight.T + layer.up.bias)
    torch.testing.assert_close(layer(x), inner @ layer.down.weight.T + layer.down.bias)


# Shazeer 2020, section 2: every member of the family by its own name
GATES = {
    "glu": FORMULAS["sigmoid"],
    "bilinear": FORMULAS["linear"],
    "reglu": FORMULAS["relu"],
    "geglu": FORMULAS["gelu"],
    "swiglu": FORMULAS["silu"],
    "gated": FORMULAS["silu"],
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", sorted(GATES))
def test_gated(name, bias, x):
    layer = make({"name": name, "hidden": HIDDEN, "bias": bias})
    gate, up = layer.gate_up.weight.split(HIDDEN)
    gate, up = x @ gate.T, x @ up.T
    if bias:
        gate, up = gate + layer.gate_up.bias[:HIDDEN], up + layer.gate_up.bias[HIDDEN:]
    expected = (GATES[name](gate) * up) @ layer.down.weight.T
    torch.testing.assert_close(layer(x), expected + layer.down.bias if bias else expected)
    assert (layer.gate_up.bias is None) == (layer.down.bias is None) == (not bias)


def test_inner_width_is_the_ratio_unless_given():
    assert make("mlp").up.weight.shape == (4 * WIDTH, WIDTH)
    assert make({"name": "mlp", "ratio": 2.5}).up.weight.shape == (15, WIDTH)
    assert make({"name": "gated", "ratio": 2.0}).gate_up.weight.shape == (24, WIDTH)
    assert make({"name": "mlp", "ratio": 2.5, "hidden": 7}).up.weight.shape == (7, WIDTH)


@pytest.mark.parametrize("name", ["mlp", "gated"])
def test_dropout_acts_on_the_inner_width_in_training_only(name, x):
    layer = make({"name": name, "activation": "relu", "hidden": HIDDEN, "dropout": 0.5})
    if name == "mlp":
        inner = F.relu(F.linear(x, layer.up.weight, layer.up.bias))
    else:
        gate, up = F.linear(x, layer.gate_up.weight, layer.gate_up.bias).chunk(2, -1)
        inner = F.relu(gate) * up
    layer.eval()
    torch.testing.assert_close(layer(x), F.linear(inner, layer.down.weight, layer.down.bias))
    layer.train()
    torch.manual_seed(0)
    found = layer(x)
    torch.manual_seed(0)
    inner = F.dropout(inner, 0.5)
    torch.testing.assert_close(found, F.linear(inner, layer.down.weight, layer.down.bias))


@pytest.mark.parametrize("name", ["mlp", "gated"])
def test_depth_makes_the_output_projection_start_smaller(name):
    torch.manual_seed(0)
    layer = build(resolve("feedforward", name), width=128, std=0.02, depth=8)
    layer.down.reset_parameters()
    ratio = layer.down.weight.std() / (0.02 * 0.8796)
    torch.testing.assert_close(ratio, torch.tensor(0.25), atol=0.01, rtol=0)


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("name", ["mlp", "geglu"])
def test_inner_norm_stands_before_the_projection_down(name, norm, x):
    """NormFormer (arXiv 2110.09456); in a gated one it sees the product, as in DALL-E mini."""
    layer = make({"name": name, "activation": "gelu", "hidden": HIDDEN, "inner_norm": norm})
    if name == "mlp":
        inner = FORMULAS["gelu"](F.linear(x, layer.up.weight, layer.up.bias))
    else:
        gate, up = F.linear(x, layer.gate_up.weight, layer.gate_up.bias).chunk(2, -1)
        inner = FORMULAS["gelu"](gate) * up
    mean = inner.mean(-1, keepdim=True) if norm == "layer" else 0
    inner = inner - mean
    eps = layer.inner_norm.eps
    inner = inner / (inner.square().mean(-1, keepdim=True) + eps).sqrt() * layer.inner_norm.weight
    inner = inner + layer.inner_norm.bias if norm == "layer" else inner
    expected = F.linear(inner, layer.down.weight, layer.down.bias)
    torch.testing.assert_close(layer(x), expected)
    plain = make({"name": name, "activation": "gelu", "hidden": HIDDEN})
    assert plain.inner_norm is None and not torch.allclose(plain(x), expected)
