"""Subsampling: exact lengths, PyTorch's convolutions as reference, nothing from past the end."""

import pytest
import torch
from torch import nn

from zoo.errors import ConfigError
from zoo.models.base import initialise
from zoo.registry import build, resolve

LAYOUTS = [
    {"layout": "convolution", "factor": 4, "pad": True},
    {"layout": "convolution", "factor": 4, "pad": False},
    {"layout": "separable", "factor": 8, "pad": True},
    {"layout": "temporal", "factor": 4, "kernel": 5, "pad": False},
]


def make(**keys):
    node = {
        "kind": "spectrogram",
        "filterbank": {"bins": 40},
        "subsampling": {"channels": 6, **keys},
    }
    return initialise(build(resolve("tokenizer", node), width=12), 0)


@pytest.mark.parametrize("keys", LAYOUTS)
@pytest.mark.parametrize("frames", [0, 1, 3, 7, 8, 9, 10, 15, 16, 17, 31, 100])
def test_lengths_are_exact(keys, frames):
    tokenizer = make(**keys)
    found, lengths = tokenizer(torch.randn(1, frames, 40), torch.tensor([frames]))
    expected = tokenizer.config.subsampling.length(frames)
    assert int(lengths[0]) == expected
    if expected:
        assert found.shape[1] == expected
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("keys", LAYOUTS)
def test_nothing_comes_from_past_the_end(keys):
    tokenizer = make(**keys)
    short, generator = 37, torch.Generator().manual_seed(1)
    alone = torch.randn(1, short, 40, generator=generator)
    expected, length = tokenizer(alone, torch.tensor([short]))
    garbage = 100 * torch.randn(1, 60, 40, generator=generator)
    padded, lengths = tokenizer(torch.cat([alone, garbage], 1), torch.tensor([short]))
    n = int(length[0])
    assert int(lengths[0]) == n
    assert (padded[0, :n] - expected[0]).abs().max() <= 1e-5


def test_the_paper_s_is_two_convolutions_and_a_linear_layer():
    tokenizer = make(layout="convolution", factor=4, pad=False, scale=True)
    a, b = nn.Conv2d(1, 6, 3, 2), nn.Conv2d(6, 6, 3, 2)
    ours = tokenizer.subsampling
    for theirs, stage in zip((a, b), ours.stages):
        theirs.load_state_dict(stage[0].state_dict())
    x = torch.randn(2, 50, 40)
    y = b(a(x[:, None]).relu()).relu()  # b c t m
    y = y.transpose(1, 2).flatten(2) @ ours.out.weight.T + ours.out.bias
    found, lengths = tokenizer(x, torch.tensor([50, 50]))
    assert (found - y * 12**0.5).abs().max() <= 1e-5
    assert lengths.tolist() == [((50 - 1) // 2 - 1) // 2] * 2  # espnet's formula


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="power of two, got 6"):
        make(factor=6)
    with pytest.raises(ConfigError, match=r"features \(40\) must have the width 12"):
        make(layout="none")


def test_a_waveform_s_lengths_are_its_convolutions():
    small = {"channels": [4, 4, 4], "kernels": [10, 3, 2], "strides": [5, 2, 2]}
    for norm in ("group", "layer"):
        config = resolve("tokenizer", {"kind": "waveform", "norm": norm, **small})
        tokenizer = initialise(build(config, width=8), 0)
        for samples in (0, 5, 9, 10, 24, 25, 26, 333):
            found, lengths = tokenizer(torch.randn(1, samples), torch.tensor([samples]))
            assert int(lengths[0]) == config.length(samples)
            assert found.shape[1] == max(1, config.length(samples))


def test_a_waveform_hears_nothing_past_its_end():
    small = {"channels": [4, 4], "kernels": [10, 3], "strides": [5, 2]}
    for norm in ("group", "layer"):
        config = resolve("tokenizer", {"kind": "waveform", "norm": norm, **small})
        tokenizer = initialise(build(config, width=8), 0)
        samples = torch.randn(1, 400)
        alone, length = tokenizer(samples, torch.tensor([400]))
        longer = torch.cat([samples, 9 * torch.randn(1, 300)], 1)
        padded, lengths = tokenizer(longer, torch.tensor([400]))
        assert torch.equal(length, lengths)
        assert (padded[:, : int(length[0])] - alone).abs().max() <= 1e-5
