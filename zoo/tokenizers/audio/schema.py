"""Schema of Whisper's spectrogram tokenizer. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.errors import ConfigError
from zoo.registry import kind, setting
from zoo.tokenizers.schema import TokenizerConfig


@kind("tokenizer", "log-mel", builds="zoo.tokenizers.audio.log_mel:LogMel")
@dataclass(kw_only=True)
class LogMelConfig(TokenizerConfig):
    """Sound as a log-mel spectrogram of windows of one length, and two convolutions that make
    tokens of it (Radford et al. 2022, arXiv 2212.04356, section 2.2)."""

    rate: int = setting(16000, "samples per second", low=1000)
    bins: int = setting(80, "mel filters (Whisper large-v3: 128)", low=1)
    window: int = setting(400, "samples of a Fourier transform", low=2)
    hop: int = setting(160, "samples from one frame to the next", low=1)
    seconds: int = setting(30, "length of a window of sound; shorter ones are filled up", low=1)
    fill: Literal["zero", "silence"] = setting(
        "zero",
        "what follows the end of a long sound in its last window: zeros among the features, as "
        "openai-whisper has it, or the silence that follows a clip",
    )

    def check(self) -> None:
        if self.rate * self.seconds % (2 * self.hop):
            raise ConfigError(
                f"hop: {self.seconds} s are no even number of hops of {self.hop} samples."
            )

        if self.window % 2 or self.window < 2 * self.hop:
            raise ConfigError(f"window: must be even and at least two hops of {self.hop} samples.")

    @property
    def samples(self) -> int:
        """Samples of a window."""
        return self.rate * self.seconds

    @property
    def frames(self) -> int:
        """Frames of a window."""
        return self.samples // self.hop

    @property
    def positions(self) -> int:
        """Tokens of a window: the second convolution halves the frames."""
        return self.frames // 2
