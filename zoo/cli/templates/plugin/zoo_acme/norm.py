"""The norm. Called norm(x) on the last axis; keeps the shape and dtype of x."""

# d width

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo_acme.schema import L1NormConfig


class L1Norm(nn.Module):
    """x / mean(|x|) * weight."""

    def __init__(self, config: L1NormConfig, width: int) -> None:
        super().__init__()
        self.eps = config.eps
        self.weight = nn.Parameter(torch.empty(width))

    def reset_parameters(self) -> None:
        """Fills the weights anew; zoo builds without memory and calls this afterwards."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:  # ... d
        return x / (x.abs().mean(-1, keepdim=True) + self.eps) * self.weight
