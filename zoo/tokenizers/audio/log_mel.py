"""Whisper's log-mel spectrogram, of clips and of long files, and the convolutions after it."""

# b batch, n samples, t frames, m mel filters, d width, f frequencies

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import DataError
from zoo.nn.linear import fill_normal_
from zoo.tokenizers.audio.read import as_list, audio_blocks, read_audio
from zoo.tokenizers.audio.schema import LogMelConfig

__all__ = ["LogMel", "slaney_filters"]

FLOOR = 1e-10  # least power that is told from silence
GROWTH = 1 << 12  # frames that room is made for at a time
RANGE = 8.0  # powers of ten below the loudest that are kept apart


class LogMel(nn.Module):
    """Raw sound -> features (`preprocess`, `file`) -> a token for every second frame
    (`forward`)."""

    def __init__(self, config: LogMelConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.conv1 = Convolution(config.bins, width, stride=1)
        self.conv2 = Convolution(width, width, stride=2)

    def forward(self, features: Tensor) -> Tensor:  # b m t -> b t/2 d
        """Raises DataError for other features than those of whole windows."""
        expected = (self.config.bins, self.config.frames)
        if features.ndim != 3 or tuple(features.shape[1:]) != expected:
            raise DataError(
                f"Expected features (batch, {expected[0]}, {expected[1]}), "
                f"got {tuple(features.shape)}."
            )
        x = F.gelu(self.conv1(features))
        return F.gelu(self.conv2(x)).transpose(1, 2)

    # -- raw sound ---------------------------------------------------------------------------------

    def windows(self, sounds: Any) -> Tensor:
        """Returns the features (b m t) of a raw sound or several (see
        `zoo.tokenizers.audio.read_audio`), each cut or filled up to one window.

        Loudness is relative to the loudest of each window, so that a batch gives what its members
        give alone.
        """
        rows = [self.clip(read_audio(sound, self.config.rate)) for sound in as_list(sounds)[0]]
        return torch.stack(rows)

    def preprocess(self, sounds: Any) -> tuple[Tensor, Tensor]:
        """Returns the same without what only fills up, (b t m), and how many frames each has (b),
        from which `filled` makes windows: what a data set keeps."""
        rows = []
        for sound in as_list(sounds)[0]:
            samples = read_audio(sound, self.config.rate)
            # the last frames that a sample has a part in
            count = (len(samples) + self.config.window // 2) // self.config.hop + 1
            rows.append(self.clip(samples)[:, :count].T)
        lengths = torch.tensor([len(row) for row in rows])
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths

    def filled(self, features: Tensor, lengths: Tensor) -> Tensor:  # b t m, b -> b m window
        """Returns windows of which each has so many frames, and silence after them."""
        place = torch.arange(self.config.frames, device=features.device)
        missing = self.config.frames - features.shape[1]
        whole = F.pad(features, (0, 0, 0, missing)) if missing > 0 else features
        loudest = features.amax((1, 2), keepdim=True)
        silence = (loudest - RANGE / 4).clamp(min=(math.log10(FLOOR) + 4) / 4)
        real = place[None, :, None] < lengths.to(place.device)[:, None, None]
        return torch.where(real, whole[:, : self.config.frames], silence).transpose(1, 2)

    def clip(self, samples: Tensor) -> Tensor:  # n -> m t
        """Returns the features of samples, cut or filled up to one window."""
        size = self.config.samples
        samples = F.pad(samples[..., :size].float(), (0, size - min(samples.shape[-1], size)))
        logs = torch.cat(list(self._blocks([samples])), dim=1)
        return relative_(logs, float(logs.max()))

    def file(self, source: Any) -> Tensor:  # -> m t
        """Returns the features of a whole sound and of a window of silence after it, as long-form
        transcription reads them; loudness is relative to the loudest of all.

        The sound is read in blocks, so that memory grows by the features alone: with 80 filters
        32 kB a second, 115 MB an hour. They cannot be let go of, since the loudest may come last.
        """
        config = self.config
        silence = torch.zeros(config.samples)
        sound = chain(audio_blocks(source, config.rate, config.seconds), [silence])
        # One array that grows in place: many small ones, and one made of them, would be the whole
        # sound twice, and what is computed between them keeps their room from being given back.
        whole, done = np.empty((0, config.bins), np.float32), 0
        for block in self._blocks(sound):
            count = block.shape[1]
            if done + count > len(whole):
                whole.resize((done + max(count, GROWTH, done // 16), config.bins), refcheck=False)
            whole[done : done + count] = block.T.numpy()
            done += count
        whole.resize((done, config.bins), refcheck=False)
        logs = torch.from_numpy(whole)
        return relative_(logs, float(logs.max())).T

    def _blocks(self, samples: Iterable[Tensor]) -> Iterator[Tensor]:  # n -> m t
        """Yields log powers of the frames that are centred on every hop, samples // hop in all; the
        ends are mirrored. Blocks of frames are the same however the samples are cut."""
        config = self.config
        reach, hop = config.window // 2, config.hop
        held = torch.zeros(0)  # from the first sample of the next frame on
        count = done = 0  # samples, frames
        for block in samples:
            held = torch.cat([held, block])
            if count <= reach < count + block.shape[0]:
                held = torch.cat([held[1 : reach + 1].flip(0), held])
            count += block.shape[0]
            while count > reach and held.shape[0] >= config.frames * hop + config.window:
                yield self._powers(held[: (config.frames - 1) * hop + config.window])
                held, done = held[config.frames * hop :], done + config.frames
        if count <= reach:
            raise DataError(f"A sound of {count} samples is too short for a spectrogram.")
        held = torch.cat([held, held[-reach - 1 : -1].flip(0)])
        rest = count // hop - done
        if rest:
            yield self._powers(held[: (rest - 1) * hop + config.window])

    def _powers(self, samples: Tensor) -> Tensor:  # n -> m t
        window, filters = _tables(self.config.rate, self.config.window, self.config.bins)
        frames = samples.unfold(0, self.config.window, self.config.hop) * window  # t window
        spectrum = torch.fft.rfft(frames)
        # a fifth of the time of abs() ** 2 or of a sum over a last axis of two
        power = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)  # t f
        return (power @ filters).clamp_(min=FLOOR).log10_().T


def relative_(logs: Tensor, loudest: float) -> Tensor:
    """Returns log powers, what is far below the loudest raised to that level, scaled in place to
    about -1 .. 1.5."""
    return logs.clamp_(min=loudest - RANGE).add_(4.0).div_(4.0)


@lru_cache(maxsize=8)
def _tables(rate: int, window: int, bins: int) -> tuple[Tensor, Tensor]:
    """Returns (Hann window, filters (f m)), made once."""
    return torch.hann_window(window), slaney_filters(rate, window, bins)


def slaney_filters(rate: int, window: int, bins: int) -> Tensor:  # -> f m
    """Returns triangular filters of equal area, evenly spaced on Slaney's mel scale from 0 Hz to
    half the rate: linear below 1000 Hz, then 27 to a factor of 6.4.

    Computed in fp64 and rounded once, as librosa does it; torchaudio's, all in fp32, are off by
    more than the features may be.
    """

    def hertz(mels: np.ndarray) -> np.ndarray:
        return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * math.log(6.4) / 27))

    top = 15 + 27 * math.log(rate / 2 / 1000) / math.log(6.4)
    corners = hertz(np.linspace(0, top, bins + 2))
    slopes = corners[:, None] - np.fft.rfftfreq(window, 1 / rate)  # m+2 f
    steps = np.diff(corners)[:, None]
    rising, falling = -slopes[:-2] / steps[:-1], slopes[2:] / steps[1:]
    filters = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    filters *= (2 / (corners[2:] - corners[:-2]))[:, None]
    return torch.from_numpy(np.ascontiguousarray(filters.T))


class Convolution(nn.Module):
    """A convolution over three frames; weight (o i 3), bias (o)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.stride = stride

    def reset_parameters(self) -> None:
        fill_normal_(self.weight, self.weight[0].numel() ** -0.5)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:  # b i t -> b o t/stride
        return F.conv1d(x, self.weight, self.bias, self.stride, padding=1)
