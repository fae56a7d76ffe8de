"""A network to deceive, and how much that counts: VQ-GAN's adversarial loss."""

# b batch, c channels, h w pixels, y x patches that are judged

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.training.codes.schema import AdversaryConfig, PatchDiscriminatorConfig

__all__ = ["PatchDiscriminator", "adaptive_weight", "deceived", "told_apart"]


class PatchDiscriminator(nn.Module):
    """(b c h w) in [-1, 1] -> (b 1 y x), above 0 for what looks like a picture."""

    def __init__(self, config: PatchDiscriminatorConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels * min(2**index, 8) for index in range(config.layers + 1)]
        layers: list[nn.Module] = [_Conv(channels, widths[0], stride=2), nn.LeakyReLU(0.2)]
        for index in range(1, len(widths)):
            plain = config.norm == "none"
            stride = 2 if index < config.layers else 1
            layers.append(_Conv(widths[index - 1], widths[index], stride, bias=plain))
            layers += [] if plain else [nn.BatchNorm2d(widths[index])]
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, _Conv(widths[-1], 1, stride=1))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers(pixels)


class _Conv(nn.Conv2d):
    def __init__(self, before: int, after: int, stride: int, bias: bool = True) -> None:
        super().__init__(before, after, 4, stride, padding=1, bias=bias)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)  # as Isola et al., section 6.2
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def deceived(network: nn.Module, pixels: Tensor) -> Tensor:
    """Returns the loss of who made the pixels: how far they are from being taken for a picture. No
    gradient reaches the network's own parameters."""
    with _still(network):
        return -network(pixels).mean()


def told_apart(network: nn.Module, config: AdversaryConfig, real: Tensor, made: Tensor) -> Tensor:
    """Returns the network's own loss; no gradient reaches who made the pixels."""
    real, made = network(real.detach()), network(made.detach())
    if config.loss == "vanilla":
        return 0.5 * (F.softplus(-real).mean() + F.softplus(made).mean())
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + made).mean())


def adaptive_weight(config: AdversaryConfig, plain: Tensor, other: Tensor, last: Tensor) -> Tensor:
    """Returns what the adversarial loss counts, so that it moves the decoder's last weights as much
    as the plain losses do, up to `config.limit`, times `config.weight` (equation 7)."""
    norms = [
        torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (plain, other)
    ]
    return (norms[0] / (norms[1] + 1e-4)).clamp(max=config.limit).detach() * config.weight


@contextmanager
def _still(network: nn.Module) -> Iterator[None]:
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, learns in zip(network.parameters(), wanted, strict=True):
            parameter.requires_grad_(learns)
