"""What the parity tests of vision formats share: random reference weights, and the comparisons."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

EXACT = 1e-5  # of the output's scale, in fp32
ROUGH = 2e-2  # relative, in bf16


def randomise(model: nn.Module, seed: int = 1) -> nn.Module:
    """Every parameter random, also those that start at 0 or 1; norms and scales stay near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator) * 0.2
            near_one = parameter.ndim == 1 and name.endswith(("weight", "gamma", "lambda1"))
            parameter.copy_(values + 1 if near_one else values)
    return model.eval()


def pictures(channels: int, height: int, width: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randn(count, channels, height, width, generator=generator)


def deviation(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference over the largest value."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float((ours - theirs).abs().max() / theirs.abs().max())


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """The norm of the difference over the norm."""
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm())


def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_files(ours: Path, theirs: dict[str, Tensor]) -> None:
    """Same names, same dtypes, same bits."""
    found = tensors(ours)
    assert found.keys() == theirs.keys(), sorted(found.keys() ^ theirs.keys())[:10]
    for name, tensor in theirs.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
