"""Convolutional encoders and decoders: VQ-GAN's and the discrete VAE's."""

# b batch, c channels, h w pixels, y x rows and columns of the grid, d width

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.attention import Attention, Context
from zoo.nn.schema import AttentionConfig
from zoo.tokenizers.visual.codecs.schema import (
    DiscreteConvCodec,
    DiscreteConvDecoderConfig,
    DiscreteConvEncoderConfig,
    ResidualConvCodec,
    ResidualConvDecoderConfig,
    ResidualConvEncoderConfig,
)

__all__ = [
    "DiscreteConvDecoder",
    "DiscreteConvEncoder",
    "ResidualConvDecoder",
    "ResidualConvEncoder",
]

# -- VQ-GAN ----------------------------------------------------------------------------------------


class ResidualConvEncoder(nn.Module):
    """(b c h w) -> (b y x d): levels of residual blocks, each half as large as the one before."""

    def __init__(
        self, config: ResidualConvEncoderConfig, channels: int, image: tuple[int, int]
    ) -> None:
        super().__init__()
        widths = [config.channels * factor for factor in config.multipliers]
        self.input = nn.Conv2d(channels, config.channels, 3, padding=1, bias=config.edge_bias)
        halve = Halve if config.halving == "convolution" else lambda _: nn.AvgPool2d(2)
        self.levels = nn.ModuleList(
            Level(config, index, before, width, halve(width) if index < len(widths) - 1 else None)
            for index, (before, width) in enumerate(zip([config.channels, *widths], widths))
        )
        self.middle = Middle(config, widths[-1])
        self.norm = _norm(config, widths[-1])
        kernel = config.edge_kernel
        self.output = nn.Conv2d(widths[-1], config.width, kernel, padding=kernel // 2)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.input(pixels)
        for level in self.levels:
            x = level(x)
        return self.output(F.silu(self.norm(self.middle(x)))).permute(0, 2, 3, 1)


class ResidualConvDecoder(nn.Module):
    """(b y x d) -> (b c h w): the mirror image. Level 0 is the smallest."""

    def __init__(
        self, config: ResidualConvDecoderConfig, channels: int, image: tuple[int, int]
    ) -> None:
        super().__init__()
        widths = [config.channels * factor for factor in config.multipliers][::-1]
        last = len(widths) - 1
        self.input = nn.Conv2d(config.width, widths[0], 3, padding=1)
        self.middle = Middle(config, widths[0])
        self.levels = nn.ModuleList(
            Level(config, last - index, before, width, Double(width) if index < last else None)
            for index, (before, width) in enumerate(zip([widths[0], *widths], widths))
        )
        self.norm = _norm(config, widths[-1])
        self.output = nn.Conv2d(widths[-1], channels, 3, padding=1)

    @property
    def last(self) -> Tensor:
        """The weight of the last layer, where an adversarial loss is weighed against the rest."""
        return self.output.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.input(x.permute(0, 3, 1, 2)))
        for level in self.levels:
            x = level(x)
        return self.output(F.silu(self.norm(x)))


class Level(nn.Module):
    """Residual blocks of one resolution, with attention after each where the config has it."""

    def __init__(
        self,
        config: ResidualConvCodec,
        number: int,
        before: int,
        width: int,
        resample: nn.Module | None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(config, before if index == 0 else width, width)
            for index in range(config.blocks)
        )
        seen = number in config.attention
        self.attentions = nn.ModuleList(
            GridAttention(config, width) for _ in range(config.blocks if seen else 0)
        )
        self.resample = nn.Identity() if resample is None else resample

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.blocks):
            x = block(x)
            if self.attentions:
                x = self.attentions[index](x)
        return self.resample(x)


class Middle(nn.Module):
    """Block, attention, block, at the smallest resolution."""

    def __init__(self, config: ResidualConvCodec, width: int) -> None:
        super().__init__()
        self.first = ResidualBlock(config, width, width)
        self.attention = GridAttention(config, width) if config.middle_attention else nn.Identity()
        self.second = ResidualBlock(config, width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.attention(self.first(x)))


class ResidualBlock(nn.Module):
    """shortcut(x) + y, y = conv(silu(norm(conv(silu(norm(x)))))); or shortcut(y) + y."""

    def __init__(self, config: ResidualConvCodec, before: int, width: int) -> None:
        super().__init__()
        bias, inward = config.block_bias, config.shortcut == "input"
        self.inward = inward or before == width
        self.norm1 = _norm(config, before)
        self.conv1 = nn.Conv2d(before, width, 3, padding=1, bias=bias)
        self.norm2 = _norm(config, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=bias)
        self.shortcut: nn.Module = nn.Identity()
        if before != width:
            self.shortcut = nn.Conv2d(before if inward else width, width, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return self.shortcut(x if self.inward else y) + y


class GridAttention(nn.Module):
    """x plus the shared attention over all places, with one head."""

    def __init__(self, config: ResidualConvCodec, width: int) -> None:
        super().__init__()
        self.norm = _norm(config, width)
        self.attention = Attention(AttentionConfig(heads=1), width)

    def forward(self, x: Tensor) -> Tensor:  # b d y x
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        return x + self.attention(tokens, Context()).transpose(1, 2).reshape(x.shape)


class Halve(nn.Module):
    """A convolution of stride 2, padded on the right and below alone, as TensorFlow does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Double(nn.Module):
    """Nearest neighbours, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _norm(config: ResidualConvCodec, width: int) -> nn.GroupNorm:
    return nn.GroupNorm(config.norm_groups, width, eps=1e-6)


# -- the discrete VAE ------------------------------------------------------------------------------


class DiscreteConvEncoder(nn.Module):
    """(b c h w) -> (b y x d), d >= 0: groups of bottleneck blocks with max-pooling between them."""

    def __init__(
        self, config: DiscreteConvEncoderConfig, channels: int, image: tuple[int, int]
    ) -> None:
        super().__init__()
        widths = [config.channels * 2**index for index in range(config.groups)]
        self.input = nn.Conv2d(channels, widths[0], 7, padding=3)
        self.groups = _groups(config, [widths[0], *widths], kernels=(3, 3, 3, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.input(pixels)
        for index, group in enumerate(self.groups):
            x = group(F.max_pool2d(x, 2) if index else x)
        return F.relu(x).permute(0, 2, 3, 1)


class DiscreteConvDecoder(nn.Module):
    """(b y x d) -> (b c h w): groups of bottleneck blocks with nearest neighbours between them."""

    def __init__(
        self, config: DiscreteConvDecoderConfig, channels: int, image: tuple[int, int]
    ) -> None:
        super().__init__()
        widths = [config.channels * 2**index for index in range(config.groups)][::-1]
        self.groups = _groups(config, [config.start, *widths], kernels=(1, 3, 3, 3))
        self.output = nn.Conv2d(widths[-1], channels, 1)

    @property
    def last(self) -> Tensor:
        """The weight of the last layer, where an adversarial loss is weighed against the rest."""
        return self.output.weight

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        for index, group in enumerate(self.groups):
            x = group(F.interpolate(x, scale_factor=2.0, mode="nearest") if index else x)
        return self.output(F.relu(x))


class Bottleneck(nn.Module):
    """x plus a small constant times four convolutions at a quarter of the width."""

    def __init__(
        self, before: int, width: int, gain: float, kernels: tuple[int, int, int, int]
    ) -> None:
        super().__init__()
        inner = width // 4
        sizes = [(before, inner), (inner, inner), (inner, inner), (inner, width)]
        self.convs = nn.Sequential(
            OrderedDict(
                (f"conv{index + 1}", nn.Sequential(nn.ReLU(), _conv(*size, kernel)))
                for index, (size, kernel) in enumerate(zip(sizes, kernels, strict=True))
            )
        )
        self.shortcut = _conv(before, width, 1) if before != width else nn.Identity()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.gain * self.convs(x)


def _groups(
    config: DiscreteConvCodec, widths: list[int], kernels: tuple[int, int, int, int]
) -> nn.ModuleList:
    gain = 1 / (config.groups * config.blocks) ** 2  # so that new blocks change little
    return nn.ModuleList(
        nn.Sequential(
            *(
                Bottleneck(before if index == 0 else width, width, gain, kernels)
                for index in range(config.blocks)
            )
        )
        for before, width in pairwise(widths)
    )


def _conv(before: int, width: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(before, width, kernel, padding=kernel // 2)
