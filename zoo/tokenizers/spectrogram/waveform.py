"""Sound to tokens by learned convolutions over its samples (wav2vec 2.0)."""

# b batch, n samples, then frames, c channels, d width

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from zoo.errors import DataError
from zoo.nn.feedforward import ACTIVATIONS
from zoo.nn.linear import Linear
from zoo.nn.norm import LayerNorm
from zoo.nn.schema import LayerNormConfig
from zoo.tokenizers.audio.read import as_list, read_audio
from zoo.tokenizers.spectrogram.schema import WaveformConfig
from zoo.tokenizers.spectrogram.subsampling import Convolution, until

__all__ = ["Waveform"]


class Waveform(nn.Module):
    """Raw sound -> samples and their lengths (`preprocess`) -> tokens and theirs (`forward`).

    No convolution is padded, so a token sees nothing past an utterance's end.
    """

    def __init__(self, config: WaveformConfig, width: int) -> None:
        super().__init__()
        self.config, self.rate = config, config.rate
        inputs = [1, *config.channels[:-1]]
        self.stages = nn.ModuleList(
            Convolution(i, o, (k,), s, bias=config.bias)
            for i, o, k, s in zip(
                inputs, config.channels, config.kernels, config.strides, strict=True
            )
        )
        if config.norm == "group":
            self.norms = nn.ModuleList([ChannelNorm(config.channels[0])])
        else:
            plain = LayerNormConfig()
            self.norms = nn.ModuleList(LayerNorm(plain, width=c) for c in config.channels)
        self.norm = LayerNorm(LayerNormConfig(eps=config.eps), width=config.channels[-1])
        self.out = Linear(config.channels[-1], width)
        self.activation = ACTIVATIONS[config.activation]

    def preprocess(self, sounds: Any) -> tuple[Tensor, Tensor]:
        """Returns samples (b n), zeros past each end, and lengths (b), of one raw sound or several;
        raises DataError."""
        rows = [self.features(read_audio(one, self.rate)) for one in as_list(sounds)[0]]
        lengths = torch.tensor([row.shape[0] for row in rows])
        return pad_sequence(rows, batch_first=True), lengths

    def features(self, samples: Tensor) -> Tensor:  # n -> n
        """Returns samples as the weights expect them."""
        if not self.config.normalise:
            return samples
        spread = (samples.var(correction=0) + 1e-7).sqrt()
        return (samples - samples.mean()) / spread

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:  # b n, b -> b n d, b
        if x.ndim != 2:
            raise DataError(f"Expected samples (batch, samples), got {tuple(x.shape)}.")
        need = 1
        for kernel, stride in zip(self.config.kernels[::-1], self.config.strides[::-1]):
            need = (need - 1) * stride + kernel
        if x.shape[1] < need:  # less than one token: it is padding that comes out
            x = F.pad(x, (0, need - x.shape[1]))
        x = x[:, None]  # b 1 n
        for index, stage in enumerate(self.stages):
            x = stage(x)
            kernel, stride = self.config.kernels[index], self.config.strides[index]
            lengths = torch.div(lengths - kernel, stride, rounding_mode="floor").add(1).clamp(min=0)
            if self.config.norm == "layer":
                x = self.norms[index](x.transpose(1, 2)).transpose(1, 2)
            elif index == 0:
                x = self.norms[0](x, until(lengths, x.shape[2])[:, None])
            x = self.activation(x)
        return self.out(self.norm(x.transpose(1, 2))), lengths


class ChannelNorm(nn.Module):
    """Each channel over the real frames of an utterance (a group norm with a group for each)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight), nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:  # b c n, b 1 n -> b c n
        real = real.to(x.dtype)
        count = real.sum(-1, keepdim=True).clamp(min=1)
        mean = (x * real).sum(-1, keepdim=True) / count
        variance = ((x - mean).square() * real).sum(-1, keepdim=True) / count
        scale = self.weight[:, None] * (variance + self.eps).rsqrt()
        return (x - mean) * scale + self.bias[:, None]
