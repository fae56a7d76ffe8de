"""Log-mel filterbank features, in the conventions that public weights were trained with.

torchaudio makes the filters (and all of Kaldi's features); it is imported when features are made.
Each sound is worked on alone, so a batch gives exactly what its sounds give.
"""

# n samples, t frames, f frequencies, m filters

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DataError
from zoo.tokenizers.spectrogram.schema import FilterbankConfig

__all__ = ["features", "frames"]

SMALLEST = 2.0**-24  # added before NeMo's logarithm
SPREAD = 1e-5  # added to the deviation that features are divided by


def frames(config: FilterbankConfig, samples: int) -> int:
    """Returns how many frames come of so many samples."""
    if config.convention == "nemo":  # a frame is centred on every hop
        return samples // config.hop
    return max(0, (samples - config.window) // config.hop + 1)  # whole windows only


def features(config: FilterbankConfig, samples: Tensor) -> Tensor:  # n -> t m
    """Returns the features of one sound at the config's rate, float32; none of one too short."""
    count = frames(config, samples.shape[0])
    if not count:
        return samples.new_zeros(0, config.bins)
    made = {"nemo": _nemo, "kaldi": _kaldi, "tensorflow": _tensorflow}
    found = made[config.convention](config, samples.float())[:count]
    return normalised(found) if config.normalise else found


def normalised(found: Tensor) -> Tensor:  # t m -> t m
    """Returns features with mean 0 and deviation 1 over time."""
    spread = found.std(0) if found.shape[0] > 1 else torch.zeros_like(found[0])
    return (found - found.mean(0)) / (spread + SPREAD)


def _nemo(config: FilterbankConfig, samples: Tensor) -> Tensor:
    samples = _emphasised(samples, config.preemphasis)
    window = _window(config.window, samples.device)
    spectrum = torch.stft(
        samples,
        config.fft,
        config.hop,
        config.window,
        window,
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    power = torch.view_as_real(spectrum).square().sum(-1)  # f t
    return torch.log(_slaney(config).to(power) @ power + SMALLEST).T


def _kaldi(config: FilterbankConfig, samples: Tensor) -> Tensor:
    fbank = _torchaudio("compliance.kaldi").fbank
    return fbank(
        samples[None] * 32768,  # Kaldi reads whole numbers
        num_mel_bins=config.bins,
        sample_frequency=config.rate,
        frame_length=1000 * config.window / config.rate,
        frame_shift=1000 * config.hop / config.rate,
        preemphasis_coefficient=config.preemphasis,
        low_freq=config.low,
        high_freq=config.high or config.rate / 2,
        dither=0.0,
    )


def _tensorflow(config: FilterbankConfig, samples: Tensor) -> Tensor:
    samples = _emphasised(samples, config.preemphasis).double()
    parts = samples.unfold(-1, config.window, config.hop) * _window(
        config.window, samples.device, torch.float64
    )
    power = torch.fft.rfft(parts, n=config.fft).abs().square()  # t f
    return torch.log((power @ _triangles(config).to(power)).clamp(min=1e-5)).float()


def _emphasised(samples: Tensor, share: float) -> Tensor:
    if not share:
        return samples
    return torch.cat([samples[:1], samples[1:] - share * samples[:-1]])


@lru_cache(maxsize=8)
def _window(size: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.hann_window(size, periodic=False, device=device, dtype=dtype)


@lru_cache(maxsize=8)
def _filters(fft: int, bins: int, rate: int, low: float, high: float) -> Tensor:  # m f
    functional = _torchaudio("functional")
    filters = functional.melscale_fbanks(
        fft // 2 + 1, low, high, bins, rate, norm="slaney", mel_scale="slaney"
    )
    return filters.T.contiguous()


def _slaney(config: FilterbankConfig) -> Tensor:
    high = config.high or config.rate / 2
    return _filters(config.fft, config.bins, config.rate, config.low, high)


@lru_cache(maxsize=8)
def _triangle_matrix(fft: int, bins: int, rate: int, low: float, high: float) -> Tensor:  # f m
    def mel(hertz: Any) -> Any:
        return 1127.0 * np.log1p(hertz / 700.0)

    # triangles over frequencies in mel; the constant component belongs to none
    hertz = np.linspace(0.0, rate / 2, fft // 2 + 1)[1:]
    place = mel(hertz)[:, None]
    edges = np.linspace(mel(np.float64(low)), mel(np.float64(high)), bins + 2)
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (place - left) / (middle - left), (right - place) / (right - middle)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    return torch.from_numpy(np.pad(weights, [[1, 0], [0, 0]]))


def _triangles(config: FilterbankConfig) -> Tensor:
    high = config.high or config.rate / 2
    return _triangle_matrix(config.fft, config.bins, config.rate, config.low, high)


def _torchaudio(module: str):
    import importlib

    try:
        return importlib.import_module(f"torchaudio.{module}")
    except (ImportError, OSError) as error:  # OSError: built for another torch
        clue = (str(error).strip().splitlines() or [""])[0][:100]
        raise DataError(
            f"Features need torchaudio, and it does not load ({clue}): pip install torchaudio, of "
            "the version that fits torch."
        ) from None
