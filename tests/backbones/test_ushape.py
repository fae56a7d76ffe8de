"""Three stacks in a U, and what stacks learned for it: a condition, a mapped memory, outer norms.
Its numbers are held to diffusers' in tests/weights/formats/test_amused.py."""

import pytest
import torch
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.models.base import initialise
from zoo.nn.attention import Context
from zoo.registry import build, resolve

GRID, OUTER = (4, 6), {"width": 8, "depth": 1, "attention": {"heads": 2}}
CROSS = {"cross_attention": {"name": "multihead", "heads": 2}}
STEM = {
    **OUTER,
    **CROSS,
    "depth": 2,
    "norm": "rms",
    "convolution": {"name": "grid", "norm": "rms", "feedforward": {"inner_norm": "response"}},
    "order": ["cross_attention", "cross_attention"],
    "memory_map": True,
    "layers": [
        {"order": ["convolution"], "placement": "post", "memory_map": False,
         "norm": {"name": "adaptive", "norm": None}},
        {},
    ],
}  # fmt: skip
MIDDLE = {**CROSS, "width": 12, "depth": 1, "attention": {"heads": 2}, "outer_norm": "rms",
          "norm": {"name": "adaptive", "norm": "rms"}}  # fmt: skip


def data(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def make(**keys):
    config = {"kind": "u-transformer", "width": 10, "down": STEM, "middle": MIDDLE, "up": STEM}
    config = resolve("backbone", {**config, **keys})
    stack = build(config, grid=GRID, memory_width=12, condition_width=12)
    stack = initialise(stack, 0).double().eval()
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(0.1 * data(*parameter.shape))
    return stack


READ = {"memory": data(2, 5, 12, seed=2), "condition": data(2, 12, seed=3)}
X = data(2, 24, 10)


@pytest.mark.parametrize("factor", [1, 2])
def test_it_is_the_stacks_one_after_the_other(factor):
    u = make(factor=factor, bias=True)
    coarse = tuple(size // factor for size in GRID)
    x = u.input(u.input_norm(X))
    if factor == 2:  # as torch's strided convolution and its transpose
        picture = u.shrink.norm(x).transpose(1, 2).unflatten(2, GRID)
        kernel = u.shrink.map.weight.view(8, 8, 2, 2)
        x = F.conv2d(picture, kernel, u.shrink.map.bias, stride=2).flatten(2).transpose(1, 2)
    x = u.narrow(u.middle(u.widen(u.down(x, grid=coarse, **READ)), grid=coarse, **READ))
    x = u.up(x, grid=coarse, **READ)
    if factor == 2:
        picture = u.grow.norm(x).transpose(1, 2).unflatten(2, coarse)
        kernel = u.grow.map.weight.view(8, 2, 2, 8).permute(3, 0, 1, 2)
        x = F.conv_transpose2d(picture, kernel, u.grow.bias, stride=2).flatten(2).transpose(1, 2)
    torch.testing.assert_close(u(X, **READ), u.output_norm(u.output(x)))


def test_all_that_is_told_is_read_and_learned():
    u = make(factor=2)
    plain = u(X, **READ)
    for name in READ:
        assert not torch.allclose(plain, u(X, **{**READ, name: READ[name] + 1}))
    u(X, **READ).square().sum().backward()
    unread = [name for name, p in u.named_parameters() if p.grad is None or not p.grad.any()]
    assert unread == []


def test_another_grid_serves_as_well():
    assert make(factor=2)(data(1, 16, 10), grid=(2, 8), memory=data(1, 3, 12),
                          condition=data(1, 12)).shape == (1, 16, 10)  # fmt: skip


def test_a_block_maps_the_memory_by_itself():
    u = make()
    block, x, memory = u.down.layers[1], data(2, 24, 8), READ["memory"]
    seen = block.memory_map(F.silu(memory))
    expected = x
    for name in ("cross_attention", "cross_attention_2"):
        y = getattr(block, f"{name}_norm")(expected)
        expected = expected + getattr(block, name)(y, Context(memory=seen))
    torch.testing.assert_close(block(x, Context(memory=memory)), expected)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"up": {**STEM, "width": 16}}, "up.width: must be down's, 8"),
        ({"middle": {**MIDDLE, "causal": True}}, "middle.causal"),
        ({"middle": {**MIDDLE, "cross_attention": None}}, "cross_attention: all three stacks"),
        ({"norm": "adaptive"}, "these norms read no condition"),
        ({"down": {**STEM, "causal": True}}, "order: a causal stack keeps one memory a layer"),
        ({"middle": {"width": 12, "memory_map": True}}, "memory_map: this stack reads no memory"),
    ],
)
def test_what_cannot_be_is_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        make(**keys)


def test_what_a_u_cannot_do_is_refused():
    with pytest.raises(ConfigError, match=r"a grid of \(3, 4\) does not divide by 2"):
        make(factor=2)(data(1, 12, 10), grid=(3, 4), memory=data(1, 3, 12), condition=data(1, 12))
    with pytest.raises(ConfigError, match="without mask or cache"):
        make()(X, cache=object(), **READ)
    with pytest.raises(ConfigError, match="no place for tokens before the grid"):
        build(make().config, grid=GRID, prefix=1, memory_width=12, condition_width=12)
