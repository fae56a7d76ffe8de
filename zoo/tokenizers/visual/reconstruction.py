"""What the decoder predicts for pixels, and how far that is from them."""

# b batch, c channels of the picture, m maps of the decoder (a multiple of c), ... the picture

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.tokenizers.visual.schema import LogitLaplaceConfig, ReconstructionConfig

__all__ = ["AbsoluteError", "LogitLaplace", "SquaredError"]


class SquaredError:
    """The prediction is the pixel."""

    def __init__(self, config: ReconstructionConfig) -> None:
        self.maps = config.maps

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:  # b m ..., b c ... -> scalar
        """Returns the mean over subpixels."""
        return F.mse_loss(prediction.float(), target.float())

    def pixels(self, prediction: Tensor) -> Tensor:  # b m ... -> b c ...
        """Returns the most probable pixels."""
        return prediction


class AbsoluteError(SquaredError):
    """The prediction is the pixel."""

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(prediction.float(), target.float())


class LogitLaplace(SquaredError):
    """The prediction is the centre and the log-width of a Laplacian over the pixel's logit.

    Targets must lie inside (0, 1): that is what a model's `span` is for.
    """

    def __init__(self, config: LogitLaplaceConfig) -> None:
        super().__init__(config)
        self.floor = config.floor

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Returns the mean negative log-likelihood in nats; below 0 where the density is above
        1."""
        centre, log_width = prediction.float().chunk(2, dim=1)
        if self.floor is not None:
            log_width = log_width.clamp(min=self.floor)
        x = target.float()
        distance = (torch.logit(x) - centre).abs() * (-log_width).exp()
        return (distance + log_width + (2 * x * (1 - x)).log()).mean()

    def pixels(self, prediction: Tensor) -> Tensor:
        return prediction.chunk(2, dim=1)[0].sigmoid()
