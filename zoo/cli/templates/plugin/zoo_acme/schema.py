"""What can be configured. Imports no torch: listing and checking must stay instant."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.data.schema import DataConfig
from zoo.nn.schema import NormConfig
from zoo.registry import kind, setting


@kind("norm", "acme/l1", builds="zoo_acme.norm:L1Norm")
@dataclass(kw_only=True)
class L1NormConfig(NormConfig):
    """x / mean(|x|) * weight (Hoffer et al. 2018, arXiv 1803.01814)."""

    eps: float = setting(1e-6, "added to the mean absolute value", above=0.0)


@kind("data", "acme/squares", builds="zoo_acme.data:Squares")
@dataclass(kw_only=True)
class SquaresConfig(DataConfig):
    """Pictures of a square, filled or hollow, at a random place."""

    count: int = setting(256, "pictures to train on; a quarter as many are held out", low=4)
    noise: float = setting(0.2, "standard deviation of the noise on pixels in [-1, 1]", low=0.0)
