"""Convolutions over tokens, in which padding never reaches a real one."""

# b batch, n tokens, d width, k kernel, r real tokens of a batch, y x rows and columns of a grid,
# t times of a clip, s of them in a kernel

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.nn.feedforward import ACTIVATIONS
from zoo.nn.linear import Linear
from zoo.nn.norm import LayerNorm
from zoo.nn.schema import GatedConvolutionConfig, GridConvolutionConfig, LayerNormConfig
from zoo.registry import build

__all__ = [
    "BatchNorm",
    "DepthwiseConvolution",
    "GatedConvolution",
    "GridConvolution",
    "GroupNorm",
]


class GatedConvolution(nn.Module):
    """down(activation(norm(depthwise(glu(up(x))))))."""

    def __init__(
        self, config: GatedConvolutionConfig, width: int, std: float = 0.02, depth: int = 0
    ) -> None:
        super().__init__()
        self.up = Linear(width, 2 * width, config.bias, std)  # rows value | gate
        self.depthwise = DepthwiseConvolution(width, config.kernel, config.causal, config.bias)
        self.norm = _norm(config, width)
        self.activation = ACTIVATIONS[config.activation]
        self.down = Linear(width, width, config.bias, std / math.sqrt(2 * depth) if depth else std)

    def forward(
        self, x: Tensor, padding: Tensor | None = None, grid: object = None, clip: object = None
    ) -> Tensor:  # b n d, b n -> b n d
        """`padding` is True at real tokens; a sequence has no use for `grid` and `clip`."""
        x = F.glu(self.up(x), dim=-1)
        if padding is not None:
            x = x.masked_fill(~padding[..., None], 0.0)
        if isinstance(self.norm, BatchNorm) and not self.training:  # the norm is a scale and a
            x = self.depthwise(x, *self.norm.folded())  # shift then, and goes into the weights
        else:
            x = self.norm(self.depthwise(x), padding)
        return self.down(self.activation(x))


class GridConvolution(nn.Module):
    """feedforward(norm(depthwise(x))) over a grid whose places are tokens in raster order, or over
    clips of which a batch holds the frames, or the places."""

    def __init__(
        self, config: GridConvolutionConfig, width: int, std: float = 0.02, depth: int = 0
    ) -> None:
        super().__init__()
        self.times, self.sequences = config.times, config.sequences
        sides = (config.kernel, config.kernel)
        if config.times is None:
            self.depthwise = DepthwiseGrid(width, sides, config.bias)
        else:
            self.depthwise = DepthwiseGrid(
                width, (config.times, *sides), config.bias, config.causal
            )
        self.norm = nn.Identity() if config.norm is None else build(config.norm, width=width)
        self.feedforward: nn.Module = nn.Identity()
        if config.feedforward is not None:
            self.feedforward = build(config.feedforward, width=width, std=std, depth=depth)

    def forward(
        self,
        x: Tensor,
        padding: Tensor | None = None,
        grid: tuple[int, ...] | None = None,
        clip: tuple[int, int, int] | None = None,  # times, rows, columns
    ) -> Tensor:  # b n d -> b n d
        """Raises ConfigError for tokens that are no grid of rows and columns, or no clip."""
        if self.times is None:
            whole = self._picture(x, grid)
        else:
            whole = self._clips(x, clip)
        y = self.depthwise(whole)  # b [t] y x d
        if self.times is not None and self.sequences == "places":
            y = y.movedim(1, 3)
        return self.feedforward(self.norm(y.reshape(x.shape)))

    def _picture(self, x: Tensor, grid: tuple[int, ...] | None) -> Tensor:  # b yx d -> b y x d
        if grid is None or len(grid) != 2 or grid[0] * grid[1] != x.shape[1]:
            raise ConfigError(
                f"convolution 'grid' is for rows and columns of places, and {x.shape[1]} tokens "
                f"with the grid {grid} are none."
            )
        return x.unflatten(1, grid)

    def _clips(self, x: Tensor, clip: tuple[int, int, int] | None) -> Tensor:  # -> b t y x d
        if clip is None:
            raise ConfigError("convolution.times: this stack sees no clip; set it to null.")
        times, *grid = clip
        if self.sequences == "frames":
            return x.reshape(-1, times, *grid, x.shape[-1])
        return x.reshape(-1, *grid, times, x.shape[-1]).movedim(3, 1)


class DepthwiseGrid(nn.Module):
    """One filter for each channel, weight (d k k) or (d s k k); beyond the border there are zeros.

    A causal one sees a time and those before it.
    """

    def __init__(
        self, width: int, kernel: tuple[int, ...], bias: bool = True, causal: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, *kernel))
        self.bias = nn.Parameter(torch.empty(width)) if bias else None
        self.around = [side // 2 for side in kernel]
        self.before = kernel[0] - 1 if causal else 0  # of times, in place of those on both sides
        if causal:
            self.around[0] = 0

    def reset_parameters(self) -> None:
        bound = self.weight[0].numel() ** -0.5  # as PyTorch starts convolutions
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:  # b [t] y x d
        picture = x.movedim(-1, 1)
        if self.before:
            picture = F.pad(picture, (0, 0, 0, 0, self.before, 0))
        filters = self.weight[:, None]  # d 1 [s] k k
        convolve = F.conv2d if filters.ndim == 4 else F.conv3d
        out = convolve(picture, filters, self.bias, padding=self.around, groups=len(filters))
        return out.movedim(1, -1)


class DepthwiseConvolution(nn.Module):
    """One filter for each channel, weight (d k); as many tokens come out as go in.

    An even kernel that is not causal sees one token more after than before.
    """

    def __init__(self, width: int, kernel: int, causal: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.before = kernel - 1 if causal else (kernel - 1) // 2
        self.after = kernel - 1 - self.before
        self.weight = nn.Parameter(torch.empty(width, kernel))
        self.bias = nn.Parameter(torch.empty(width)) if bias else None

    def reset_parameters(self) -> None:
        bound = self.weight.shape[1] ** -0.5  # as PyTorch starts convolutions
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:  # b n d -> b n d
        """Returns the convolution, times `scale` (d) and plus `shift` (d) where they are given."""
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        if scale is not None and shift is not None:
            weight = weight * scale[:, None]
            bias = shift if bias is None else bias * scale + shift
        # The layout (b n d) is that of a picture of one row with channels last: nothing is copied.
        picture = x.transpose(1, 2)[:, :, None]  # b d 1 n
        around = self.before
        if self.before != self.after:
            picture, around = F.pad(picture, (self.before, self.after)), 0
        filters = weight[:, None, None]  # d 1 1 k
        out = F.conv2d(picture, filters, bias, padding=(0, around), groups=weight.shape[0])
        return out[:, :, 0].transpose(1, 2)


class BatchNorm(nn.Module):
    """Over the real tokens of a batch in training, by running statistics otherwise (Ioffe and
    Szegedy 2015, arXiv 1502.03167)."""

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, width: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))
        self.register_buffer("mean", torch.empty(width))
        self.register_buffer("variance", torch.empty(width))
        self.register_buffer("batches", torch.empty((), dtype=torch.int64))  # seen in training

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight), nn.init.zeros_(self.bias)
        self.mean.zero_(), self.variance.fill_(1.0), self.batches.zero_()

    def folded(self) -> tuple[Tensor, Tensor]:
        """Returns (scale, shift), each (d), that the norm is outside of training."""
        scale = self.weight * (self.variance + self.eps).rsqrt()
        return scale, self.bias - self.mean * scale

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:  # b n d -> b n d
        if not self.training:
            scale, shift = self.folded()
            return x * scale + shift
        self.batches += 1
        rows = x.flatten(0, 1) if padding is None else x[padding]  # r d
        rows = F.batch_norm(
            rows, self.mean, self.variance, self.weight, self.bias, True, self.momentum, self.eps
        )
        if padding is None:
            return rows.view_as(x)
        return torch.zeros_like(x).masked_scatter(padding[..., None], rows.to(x.dtype))


class GroupNorm(nn.Module):
    """One group: over all channels of all real tokens of a sequence (Wu and He 2018, arXiv
    1803.08494)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight), nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:  # b n d -> b n d
        real = x.new_ones(x.shape[:2]) if padding is None else padding.to(x.dtype)
        real = real[..., None]
        count = (real.sum((1, 2), keepdim=True) * x.shape[-1]).clamp(min=1)  # b 1 1
        mean = (x * real).sum((1, 2), keepdim=True) / count
        variance = ((x - mean).square() * real).sum((1, 2), keepdim=True) / count
        return (x - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias


class _TokenNorm(LayerNorm):
    """A token's own channels; what is padding does not matter."""

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return super().forward(x)


class _NoNorm(nn.Module):
    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return x


def _norm(config: GatedConvolutionConfig, width: int) -> nn.Module:
    if config.norm == "batch":
        return BatchNorm(width, config.eps, config.momentum)
    if config.norm == "group":
        return GroupNorm(width, config.eps)
    return (
        _TokenNorm(LayerNormConfig(eps=config.eps), width) if config.norm == "layer" else _NoNorm()
    )
