"""What learns against the model: a second network with an optimiser of its own."""

from __future__ import annotations

import torch
from torch import nn

from zoo.training.distributed import World

__all__ = ["Opponent"]


class Opponent:
    """A network that an objective's model is set against. It is small, so every process holds all
    of it; gradients are added up over the processes before each step.

    (Running statistics of its norms follow the main process's share of the data alone.)
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, world: World) -> None:
        self.network, self.optimizer, self.world = network, optimizer, world
        self.peaks = [group["lr"] for group in optimizer.param_groups]

    def step(self, share: float) -> None:
        """Makes a step at `share` of the learning rate, if anything was learned."""
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        if not gradients:  # in no process: all begin at the same step
            return
        for gradient in gradients:
            self.world.sum(gradient)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
