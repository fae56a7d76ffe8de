"""Features against the libraries whose conventions they follow."""

import math

import numpy as np
import pytest
import torch

from zoo.errors import ConfigError, DataError
from zoo.registry import build, resolve
from zoo.tokenizers.spectrogram.filterbank import features, frames

RATE = 16000
LASR = {
    "convention": "tensorflow",
    "bins": 128,
    "low": 125,
    "high": 7500,
    "preemphasis": 0,
    "normalise": False,
}


def bank(**keys):
    return resolve("tokenizer", {"kind": "spectrogram", "filterbank": keys}).filterbank


def sounds():
    time = torch.arange(RATE * 2) / RATE
    noise = torch.randn(RATE + 77, generator=torch.Generator().manual_seed(0))
    chirp = torch.sin(2 * math.pi * (100 * time + 900 * time**2))
    return {"noise": 0.1 * noise, "chirp": 0.5 * chirp, "short": 0.1 * noise[:1999]}


@pytest.mark.parametrize("name", ["noise", "chirp", "short"])
def test_nemos_convention_is_parakeets(name):
    transformers = pytest.importorskip("transformers")
    samples = sounds()[name]
    theirs = transformers.ParakeetFeatureExtractor()(
        samples.numpy(), sampling_rate=RATE, return_tensors="pt"
    )
    ours = features(bank(), samples)
    assert len(ours) == int(theirs.attention_mask.sum())
    assert (theirs.input_features[0, : len(ours)] - ours).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ["noise", "chirp", "short"])
def test_tensorflows_convention_is_lasrs(name):
    transformers = pytest.importorskip("transformers")
    samples = sounds()[name]
    theirs = transformers.LasrFeatureExtractor()(
        samples.numpy(), sampling_rate=RATE, return_tensors="pt"
    )
    ours = features(bank(**LASR), samples)
    assert (theirs.input_features[0].float() - ours).abs().max() <= 1e-4


def test_kaldis_convention_is_kaldis_formula():
    samples = sounds()["noise"]
    ours = features(bank(convention="kaldi", low=20, normalise=False), samples)
    assert (ours - _kaldi(samples.double().numpy() * 32768)).abs().max() <= 1e-3


def _kaldi(samples):
    """compute-fbank-feats, written out: per frame the mean off, pre-emphasis, Povey's window."""
    count = (len(samples) - 400) // 160 + 1
    window = (0.5 - 0.5 * np.cos(2 * math.pi * np.arange(400) / 399)) ** 0.85
    mel = lambda hertz: 1127 * np.log1p(np.asarray(hertz) / 700)  # noqa: E731
    edges = np.linspace(mel(20), mel(8000), 82)
    place = mel(np.arange(256) * RATE / 512)[:, None]
    up = (place - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - place) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0, np.minimum(up, down))
    rows = []
    for index in range(count):
        frame = samples[160 * index : 160 * index + 400]
        frame = frame - frame.mean()
        frame = (frame - 0.97 * np.append(frame[0], frame[:-1])) * window
        power = np.abs(np.fft.rfft(frame, 512))[:256] ** 2
        rows.append(np.log(np.maximum(power @ filters, np.finfo(np.float32).eps)))
    return torch.from_numpy(np.stack(rows))


@pytest.mark.parametrize("convention", ["nemo", "kaldi", "tensorflow"])
@pytest.mark.parametrize("samples", [0, 1, 159, 160, 399, 400, 401, 1600, 1761])
def test_as_many_frames_as_announced(convention, samples):
    config = bank(convention=convention)
    sound = torch.randn(samples, generator=torch.Generator().manual_seed(1))
    found = features(config, sound)
    assert found.shape == (frames(config, samples), 80) and torch.isfinite(found).all()


@pytest.mark.parametrize("convention", ["nemo", "kaldi", "tensorflow"])
def test_silence_has_finite_features(convention):
    assert torch.isfinite(features(bank(convention=convention), torch.zeros(RATE))).all()


def test_a_batch_is_its_sounds():
    tokenizer = build(resolve("tokenizer", "filterbank"), width=8)
    three = [(sound.numpy(), RATE) for sound in sounds().values()]
    together, lengths = tokenizer.preprocess(three)
    for row, one in enumerate(three):
        alone, length = tokenizer.preprocess(one)
        assert int(length[0]) == int(lengths[row])
        assert torch.equal(together[row, : int(length[0])], alone[0])
        assert not together[row, int(length[0]) :].any()


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="do not hold a window of 800"):
        bank(window=800)
    with pytest.raises(ConfigError, match="half the rate"):
        bank(high=9000)
    tokenizer = build(resolve("tokenizer", "filterbank"), width=8)
    with pytest.raises(DataError, match=r"Expected features \(batch, frames, 80\)"):
        tokenizer(torch.zeros(1, 20, 40), torch.tensor([20]))
