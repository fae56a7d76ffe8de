"""From features to fewer, wider tokens: strided convolutions over time (and frequency), in which
what lies past an utterance's end counts as zeros after every stage."""

# b batch, t frames, m features, c channels, n tokens, d width

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.linear import Linear
from zoo.tokenizers.spectrogram.schema import SubsamplingConfig

# Numbers of the first stage's output in memory at once outside of training: 128 MB in fp32.
BLOCK = 1 << 25

__all__ = ["Convolution", "build_subsampling", "until"]


def until(lengths: Tensor, count: int) -> Tensor:  # b -> b count
    """Returns a mask that is True before each length."""
    return torch.arange(count, device=lengths.device) < lengths[:, None]


class Convolution(nn.Module):
    """A convolution with PyTorch's initialisation, made when asked for; weight (o i/g k [k])."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, ...],
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.groups = stride, padding, groups
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, *kernel))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.call = F.conv2d if len(kernel) == 2 else F.conv1d

    def reset_parameters(self) -> None:
        bound = self.weight[0].numel() ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)


class PlanarSubsampling(nn.Module):
    """2-D convolutions over time and frequency, then a linear layer over what is left of the
    frequencies (Conformer; separable: FastConformer, arXiv 2305.05084)."""

    def __init__(self, config: SubsamplingConfig, bins: int, width: int) -> None:
        super().__init__()
        self.config = config
        c, k = config.channels, config.kernel
        padding = (k - 1) // 2 if config.pad else 0
        stages = []
        for stage in range(config.stages):
            if stage and config.layout == "separable":
                own = Convolution(c, c, (k, k), 2, padding, groups=c)
                stages.append(nn.ModuleList([own, Convolution(c, c, (1, 1))]))
            else:
                full = Convolution(c if stage else 1, c, (k, k), 2, padding)
                stages.append(nn.ModuleList([full]))
        self.stages = nn.ModuleList(stages)
        self.out = Linear(c * config.length(bins), width, std=(c * config.length(bins)) ** -0.5)
        self.scale = math.sqrt(width) if config.scale else 1.0

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:  # b t m -> b n d
        """In training at once; otherwise some tokens at a time, since the first stage has some
        hundred times as many numbers as the sound has features."""
        config, frames = self.config, x.shape[1]
        factor, count = 2**config.stages, config.length(frames)
        size = max(1, 4 * BLOCK // (x.shape[0] * factor * x.shape[2] * config.channels))
        if torch.is_grad_enabled() or count <= size:
            return self._tokens(x, lengths)
        around, found = config.kernel, []  # tokens that see what is beyond a block's ends
        for start in range(0, count, size):
            before = min(start, around)
            first, last = (start - before) * factor, (start + size + around) * factor
            part = x[:, first:last]
            real = (lengths - first).clamp(min=0, max=part.shape[1])
            tokens, _ = self._tokens(part, real)
            found.append(tokens[:, before : before + min(size, count - start)])
        for _ in range(config.stages):
            lengths = _halved(config, lengths)
        return torch.cat(found, 1), lengths

    def _tokens(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:  # b t m -> b n d
        whole = bool((lengths == x.shape[1]).all())  # nothing to be hidden
        x = x[:, None]  # b 1 t m
        if x.device.type == "cpu":  # where oneDNN is several times faster so
            x = x.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            lengths = _halved(self.config, lengths)
            for layer in stage.children():
                x = layer(x)
                if not whole:
                    x = x.masked_fill(~until(lengths, x.shape[2])[:, None, :, None], 0.0)
            x = F.relu(x) if torch.is_grad_enabled() else x.relu_()
        x = self.out(x.transpose(1, 2).flatten(2))
        return (x * self.scale if self.scale != 1.0 else x), lengths


class TemporalSubsampling(nn.Module):
    """A linear layer, 1-D convolutions over time, a linear layer (LASR)."""

    def __init__(self, config: SubsamplingConfig, bins: int, width: int) -> None:
        super().__init__()
        self.config = config
        k, padding = config.kernel, (config.kernel - 1) // 2 if config.pad else 0
        self.enter = Linear(bins, width, std=bins**-0.5)
        last = config.stages - 1
        self.stages = nn.ModuleList(
            Convolution(width, config.channels if stage == last else width, (k,), 2, padding)
            for stage in range(config.stages)
        )
        self.out = Linear(config.channels, width, std=config.channels**-0.5)
        self.scale = math.sqrt(width) if config.scale else 1.0

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:  # b t m -> b n d
        x = self.enter(x, "relu").transpose(1, 2)  # b d t
        x = x.masked_fill(~until(lengths, x.shape[2])[:, None], 0.0)
        for stage in self.stages:
            x = F.relu(stage(x))
            lengths = _halved(self.config, lengths)
            x = x.masked_fill(~until(lengths, x.shape[2])[:, None], 0.0)
        x = self.out(x.transpose(1, 2))
        return (x * self.scale if self.scale != 1.0 else x), lengths


class NoSubsampling(nn.Module):
    """Features are tokens."""

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return x, lengths


def _halved(config: SubsamplingConfig, lengths: Tensor) -> Tensor:
    around = (config.kernel - 1) // 2 * 2 if config.pad else 0
    shorter = torch.div(lengths + around - config.kernel, 2, rounding_mode="floor") + 1
    return shorter.clamp(min=0) * (lengths > 0)


def build_subsampling(config: SubsamplingConfig, bins: int, width: int) -> nn.Module:
    """Returns the module of a layout."""
    if config.layout == "none":
        return NoSubsampling()
    made = TemporalSubsampling if config.layout == "temporal" else PlanarSubsampling
    return made(config, bins, width)
