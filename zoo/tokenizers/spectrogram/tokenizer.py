"""Sound to tokens by way of a spectrogram."""

# b batch, t frames, m features, n tokens, d width

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from zoo.errors import ConfigError, DataError
from zoo.tokenizers.audio.read import as_list, read_audio
from zoo.tokenizers.spectrogram.filterbank import features
from zoo.tokenizers.spectrogram.schema import SpectrogramConfig
from zoo.tokenizers.spectrogram.subsampling import build_subsampling, until

__all__ = ["Spectrogram"]


class Spectrogram(nn.Module):
    """Raw sound -> features and their lengths (`preprocess`) -> tokens and theirs (`forward`)."""

    def __init__(self, config: SpectrogramConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.rate, self.bins = config.rate, config.filterbank.bins
        if config.subsampling.layout == "none" and self.bins != width:
            raise ConfigError(
                f"subsampling: without one, features ({self.bins}) must have the width {width}."
            )
        self.subsampling = build_subsampling(config.subsampling, self.bins, width)

    def preprocess(self, sounds: Any) -> tuple[Tensor, Tensor]:
        """Returns features (b t m), zeros past each end, and lengths (b), of one raw sound or
        several (see `zoo.tokenizers.audio.read_audio`); raises DataError."""
        rows = [self.features(read_audio(one, self.rate)) for one in as_list(sounds)[0]]
        lengths = torch.tensor([row.shape[0] for row in rows])
        return pad_sequence(rows, batch_first=True), lengths

    def features(self, samples: Tensor) -> Tensor:  # n -> t m
        """Returns the features of samples at the config's rate."""
        return features(self.config.filterbank, samples)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:  # b t m, b -> b n d, b
        if x.ndim != 3 or x.shape[2] != self.bins:
            raise DataError(
                f"Expected features (batch, frames, {self.bins}), got {tuple(x.shape)}."
            )
        if bool((lengths < x.shape[1]).any()):
            x = x.masked_fill(~until(lengths, x.shape[1])[..., None], 0.0)
        short = self.config.subsampling.shortest - x.shape[1]
        if short > 0:  # less than a token: it is padding that comes out
            x = nn.functional.pad(x, (0, 0, 0, short))
        return self.subsampling(x, lengths)
