"""Schemas of the spectrogram tokenizers. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.errors import ConfigError
from zoo.nn.schema import Activation
from zoo.registry import kind, section, setting
from zoo.tokenizers.schema import TokenizerConfig


@dataclass(kw_only=True)
class FilterbankConfig:
    """Waveform to log-mel features. Sizes are in samples."""

    convention: Literal["nemo", "kaldi", "tensorflow"] = setting(
        "nemo",
        "how frames, filters and logarithm are taken: NeMo and Parakeet; Kaldi; tf.signal (LASR)",
    )
    rate: int = setting(16000, "samples a second", low=1000)
    bins: int = setting(80, "mel filters m", low=1)
    window: int = setting(400, "samples of a frame", low=2)
    hop: int = setting(160, "samples from one frame to the next", low=1)
    fft: int = setting(512, "points of the Fourier transform", low=2)
    preemphasis: float = setting(
        0.97, "share of the last sample that is subtracted", low=0.0, high=1.0
    )
    low: float = setting(0.0, "lowest frequency of the filters, Hz (Kaldi 20, LASR 125)", low=0.0)
    high: float | None = setting(None, "highest; null is half the rate (LASR 7500)", above=0.0)
    normalise: bool = setting(True, "each feature gets mean 0 and deviation 1 over an utterance")

    def check(self) -> None:
        if self.window > self.fft:
            raise ConfigError(f"fft: {self.fft} points do not hold a window of {self.window}.")
        if (self.high or self.rate / 2) > self.rate / 2 or self.low >= (self.high or self.rate / 2):
            raise ConfigError(
                f"high: filters must lie between `low` and half the rate, {self.rate / 2:g} Hz."
            )


@dataclass(kw_only=True)
class SubsamplingConfig:
    """Features to fewer tokens of the model's width."""

    layout: Literal["convolution", "separable", "temporal", "none"] = setting(
        "convolution",
        "2-D convolutions; the same, separable from the second on (FastConformer); linear and 1-D "
        "convolutions (LASR); none, where features have the model's width already",
    )
    factor: int = setting(4, "frames to a token: 2, 4, 8 or 16; a halving each", low=1, high=16)
    channels: int = setting(256, "channels of the convolutions", low=1)
    kernel: int = setting(3, "their kernel", low=1)
    pad: bool = setting(True, "zeros around the features; without, both ends lose frames")
    scale: bool = setting(False, "times sqrt(width) at the end (Conformer's xscaling)")

    def check(self) -> None:
        if self.factor & (self.factor - 1):
            raise ConfigError(f"factor: must be a power of two, got {self.factor}.")
        if self.layout == "temporal" and self.factor < 4:
            raise ConfigError("factor: layout 'temporal' halves twice or more.")

    @property
    def stages(self) -> int:
        """How often the number of frames is halved."""
        return 0 if self.layout == "none" else self.factor.bit_length() - 1

    def length(self, frames: int) -> int:
        """Returns how many tokens (or features, across) come of so many frames."""
        around = (self.kernel - 1) // 2 * 2 if self.pad else 0
        for _ in range(self.stages):
            frames = max(0, (frames + around - self.kernel) // 2 + 1) if frames else 0
        return frames

    @property
    def shortest(self) -> int:
        """The fewest frames that give a token."""
        frames = 1
        around = (self.kernel - 1) // 2 * 2 if self.pad else 0
        for _ in range(self.stages):
            frames = max(1, (frames - 1) * 2 + self.kernel - around)
        return frames


@kind("tokenizer", "spectrogram", builds="zoo.tokenizers.spectrogram.tokenizer:Spectrogram")
@dataclass(kw_only=True)
class SpectrogramConfig(TokenizerConfig):
    """Sound -> filterbank features -> tokens."""

    filterbank: FilterbankConfig = section(FilterbankConfig, doc="waveform to features")
    subsampling: SubsamplingConfig = section(SubsamplingConfig, doc="features to tokens")

    @property
    def rate(self) -> int:
        """Samples a second."""
        return self.filterbank.rate

    @property
    def seconds_per_token(self) -> float:
        """How much time a token stands for."""
        return 2**self.subsampling.stages * self.filterbank.hop / self.filterbank.rate

    def inputs(self) -> str:
        """What goes in, for people."""
        bank = self.filterbank
        step = 1000 * self.seconds_per_token
        return f"sound, or features (b t {bank.bins}) and lengths; a token every {step:g} ms"


@kind("tokenizer", "waveform", builds="zoo.tokenizers.spectrogram.waveform:Waveform")
@dataclass(kw_only=True)
class WaveformConfig(TokenizerConfig):
    """Sound -> learned convolutions -> tokens (Schneider et al. 2019; wav2vec 2.0, Baevski et al.
    2020, arXiv 2006.11477, section 2)."""

    rate: int = setting(16000, "samples a second", low=1000)
    normalise: bool = setting(True, "each utterance gets mean 0 and deviation 1")
    channels: list[int] = setting([512] * 7, "of each convolution", low=1)
    kernels: list[int] = setting([10, 3, 3, 3, 3, 2, 2], "of each convolution", low=1)
    strides: list[int] = setting([5, 2, 2, 2, 2, 2, 2], "of each convolution", low=1)
    bias: bool = setting(False, "bias on the convolutions")
    norm: Literal["group", "layer"] = setting(
        "group", "each channel over an utterance, after the first; or each frame, after all of them"
    )
    activation: Activation = setting("gelu", "after each convolution")
    eps: float = setting(1e-5, "of the norm before the projection", low=0.0)

    def check(self) -> None:
        if not len(self.channels) == len(self.kernels) == len(self.strides) > 0:
            raise ConfigError("channels: as many are needed as kernels and strides, one or more.")

    @property
    def seconds_per_token(self) -> float:
        """How much time a token stands for."""
        step = 1
        for stride in self.strides:
            step *= stride
        return step / self.rate

    def length(self, samples: int) -> int:
        """Returns how many tokens come of so many samples."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = max(0, (samples - kernel) // stride + 1)
        return samples

    def inputs(self) -> str:
        """What goes in, for people."""
        step = 1000 * self.seconds_per_token
        return f"sound, or samples (b n) and lengths; a token every {step:g} ms"
