"""The Conformer's convolution module against PyTorch's layers; padding is nobody's business."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.models.base import initialise
from zoo.registry import build, resolve

WIDTH = 8


def make(seed=0, **keys):
    module = initialise(build(resolve("convolution", {"kind": "gated", **keys}), width=WIDTH), seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    return module.eval()


def reference(module, x, kernel, causal, norm):
    y = F.glu(F.linear(x, module.up.weight, module.up.bias), dim=-1).transpose(1, 2)
    before = kernel - 1 if causal else (kernel - 1) // 2
    y = F.pad(y, (before, kernel - 1 - before))
    weight = module.depthwise.weight[:, None]
    y = F.conv1d(y, weight, module.depthwise.bias, groups=WIDTH)
    y = F.silu(norm(y)).transpose(1, 2)
    return F.linear(y, module.down.weight, module.down.bias)


@pytest.mark.parametrize("kernel", [1, 4, 7, 32])
@pytest.mark.parametrize("causal", [False, True])
def test_with_batch_norm_it_is_pytorch_s_layers(kernel, causal):
    module = make(kernel=kernel, causal=causal)
    norm = nn.BatchNorm1d(WIDTH)
    norm.load_state_dict(
        {
            "weight": module.norm.weight,
            "bias": module.norm.bias,
            "running_mean": torch.randn(WIDTH),
            "running_var": torch.rand(WIDTH) + 0.5,
            "num_batches_tracked": torch.tensor(3),
        }
    )
    module.norm.mean.copy_(norm.running_mean), module.norm.variance.copy_(norm.running_var)
    x = torch.randn(2, 20, WIDTH)
    assert (module(x) - reference(module, x, kernel, causal, norm.eval())).abs().max() < 1e-4
    module.train(), norm.train()
    assert (module(x) - reference(module, x, kernel, causal, norm)).abs().max() < 1e-4
    assert torch.allclose(module.norm.mean, norm.running_mean, atol=1e-6)
    assert torch.allclose(module.norm.variance, norm.running_var, atol=1e-5)
    assert module.norm.batches == 1


def test_with_group_norm_it_is_pytorch_s_layers():
    module = make(kernel=7, norm="group")
    norm = nn.GroupNorm(1, WIDTH)
    norm.load_state_dict(module.norm.state_dict())
    x = torch.randn(2, 20, WIDTH)
    assert (module(x) - reference(module, x, 7, False, norm)).abs().max() < 1e-4


@pytest.mark.parametrize("norm", ["batch", "layer", "group", "none"])
@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_no_real_token(norm, training):
    x = torch.randn(1, 13, WIDTH, generator=torch.Generator().manual_seed(2))
    padded = torch.cat([x, 50 * torch.randn(1, 9, WIDTH)], 1)
    real = torch.arange(22)[None] < 13
    first, second = (make(kernel=7, norm=norm).train(training) for _ in range(2))
    alone = first(x, torch.ones(1, 13, dtype=torch.bool))
    assert (second(padded, real)[:, :13] - alone).abs().max() <= 1e-5 * alone.abs().max()
    for ours, theirs in zip(first.buffers(), second.buffers()):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_causal_one_sees_no_future():
    module, x = make(kernel=5, causal=True), torch.randn(1, 12, WIDTH)
    changed = x.clone()
    changed[:, 7:] += 1
    assert torch.equal(module(x)[:, :7], module(changed)[:, :7])


def test_padding_changes_no_gradient():
    x = torch.randn(1, 6, WIDTH)
    gradients = []
    for length in (6, 9):
        module = make(kernel=3).train()
        padded = torch.cat([x, torch.randn(1, length - 6, WIDTH)], 1).requires_grad_()
        module(padded, torch.arange(length)[None] < 6)[:, :6].square().sum().backward()
        gradients.append(padded.grad[:, :6])
        assert not padded.grad[:, 6:].any()
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-4)


# -- over a grid -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "bias"), [(1, True), (3, False), (7, True)])
def test_on_a_grid_it_is_pytorch_s_depthwise_convolution(kernel, bias):
    module = make(kind="grid", kernel=kernel, bias=bias, norm=None, feedforward={"ratio": 2.0})
    picture = torch.randn(2, WIDTH, 4, 5, generator=torch.Generator().manual_seed(3))
    theirs = nn.Conv2d(WIDTH, WIDTH, kernel, padding=kernel // 2, groups=WIDTH, bias=bias)
    with torch.no_grad():
        theirs.weight.copy_(module.depthwise.weight[:, None])
        if bias:
            theirs.bias.copy_(module.depthwise.bias)
    tokens = picture.flatten(2).transpose(1, 2)
    expected = module.feedforward(theirs(picture).flatten(2).transpose(1, 2))
    torch.testing.assert_close(module(tokens, grid=(4, 5)), expected)


@pytest.mark.parametrize("causal", [False, True])
def test_over_clips_it_is_pytorch_s_depthwise_convolution(causal):
    """Whether a batch holds the frames or the places of the clips."""
    clips, keys = (4, 3, 5), {"kind": "grid", "times": 3, "norm": None, "feedforward": None}
    whole = torch.randn(2, *clips, WIDTH, generator=torch.Generator().manual_seed(3))
    frames = make(causal=causal, **keys)
    places = make(causal=causal, sequences="places", **keys)
    theirs = nn.Conv3d(WIDTH, WIDTH, 3, groups=WIDTH)
    with torch.no_grad():
        theirs.weight.copy_(frames.depthwise.weight[:, None])
        theirs.bias.copy_(frames.depthwise.bias)
    around = (1, 1, 1, 1, 2, 0) if causal else (1, 1, 1, 1, 1, 1)
    expected = theirs(F.pad(whole.movedim(-1, 1), around)).movedim(1, -1)
    found = frames(whole.flatten(2, 3).flatten(0, 1), clip=clips)
    torch.testing.assert_close(found.view_as(expected), expected)
    moved = whole.movedim(1, 3).flatten(0, 2)  # b y x t d
    found = places(moved, clip=clips).view(2, *clips[1:], clips[0], WIDTH)
    torch.testing.assert_close(found.movedim(3, 1), expected)


def test_what_is_no_grid_is_refused():
    module = make(kind="grid", kernel=3)
    for grid in (None, (20,), (3, 5), (1, 4, 5)):
        with pytest.raises(ConfigError, match="rows and columns of places, and 20 tokens"):
            module(torch.zeros(1, 20, WIDTH), grid=grid)
    with pytest.raises(ConfigError, match=r"kernel: a square .* has an odd side, not 4"):
        resolve("convolution", {"kind": "grid", "kernel": 4})
    with pytest.raises(ConfigError, match=r"times: as many before as after .* not 2"):
        resolve("convolution", {"kind": "grid", "times": 2})
    with pytest.raises(ConfigError, match="this stack sees no clip"):
        make(kind="grid", times=3)(torch.zeros(1, 20, WIDTH), grid=(4, 5))
