"""Whisper's spectrogram against openai-whisper's and transformers'."""

from __future__ import annotations

import math

import pytest
import torch

from zoo.errors import ConfigError, DataError
from zoo.registry import resolve
from zoo.tokenizers.audio.log_mel import LogMel, slaney_filters

SECOND = 16000


def tokenizer(**keys) -> LogMel:
    return LogMel(resolve("tokenizer", {"kind": "log-mel", **keys}), 8)


def sounds() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(30 * SECOND) / SECOND
    return {
        "noise": torch.randn(30 * SECOND, generator=generator) * 0.1,
        "chirp": 0.5 * torch.sin(2 * math.pi * (100 + 100 * time) * time),
        "silence": torch.zeros(30 * SECOND),
        "nearly silence": torch.randn(30 * SECOND, generator=generator) * 1e-5,
        "short": torch.randn(5 * SECOND + 37, generator=generator),
        "0.1 s": torch.randn(SECOND // 10, generator=generator),
        "one sample": torch.ones(1),
        "40 s": torch.randn(40 * SECOND + 99, generator=generator),
    }


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("name", sounds())
def test_features_are_openais(name, bins):
    from whisper.audio import N_SAMPLES, log_mel_spectrogram, pad_or_trim

    ours, sound = tokenizer(bins=bins), sounds()[name]
    clip = log_mel_spectrogram(pad_or_trim(sound), bins)
    torch.testing.assert_close(ours.windows(sound)[0], clip, rtol=0, atol=1e-6)
    file = log_mel_spectrogram(sound, bins, padding=N_SAMPLES)
    torch.testing.assert_close(ours.file(sound), file, rtol=0, atol=1e-6)


def test_features_are_transformers():
    from transformers import WhisperFeatureExtractor

    sound = sounds()["short"]
    theirs = WhisperFeatureExtractor(feature_size=80)(
        sound.numpy(), sampling_rate=SECOND, return_tensors="pt", device="cpu"
    ).input_features
    torch.testing.assert_close(tokenizer().windows(sound), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bins", [80, 128])
def test_filters_are_librosas(bins):
    from whisper.audio import mel_filters

    assert torch.equal(slaney_filters(SECOND, 400, bins).T, mel_filters("cpu", bins))


def test_a_quiet_sound_is_the_same_beside_a_loud_one():
    every = sounds()
    names = ["nearly silence", "noise", "short"]
    together = tokenizer().windows([every[name] for name in names])
    alone = torch.cat([tokenizer().windows(every[name]) for name in names])
    assert torch.equal(together, alone)


def test_a_file_is_the_same_however_it_is_read():
    ours, sound = tokenizer(seconds=2), sounds()["40 s"][: 7 * SECOND + 13]
    whole = torch.cat(list(ours._blocks([sound])), dim=1)
    for size in (1, 100, 16001):
        parts = sound[:5000].split(size) if size == 1 else sound.split(size)
        expected = torch.cat(list(ours._blocks([sound[:5000]])), dim=1) if size == 1 else whole
        assert torch.equal(torch.cat(list(ours._blocks(parts)), dim=1), expected)
    assert whole.shape[1] == len(sound) // 160


def test_what_a_data_set_keeps_makes_the_same_windows():
    ours, every = tokenizer(), sounds()
    batch = [every["short"], every["0.1 s"], every["40 s"], every["noise"][: 3 * SECOND]]
    features, lengths = ours.preprocess(batch)
    assert lengths.tolist() == [502, 12, 3000, 302]
    torch.testing.assert_close(
        ours.filled(features, lengths), ours.windows(batch), rtol=0, atol=1e-6
    )


def test_impossible_sizes():
    with pytest.raises(ConfigError, match="no even number of hops"):
        tokenizer(hop=7000)
    with pytest.raises(ConfigError, match="at least two hops"):
        tokenizer(window=200)
    with pytest.raises(DataError, match=r"Expected features \(batch, 80, 3000\)"):
        tokenizer()(torch.zeros(1, 80, 100))
