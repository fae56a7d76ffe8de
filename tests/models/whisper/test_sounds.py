"""Whisper and sounds as people have them, and as they break: one result or one sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zoo
from zoo.data.speech.utterances import shipped
from zoo.errors import DataError
from zoo.tokenizers.audio.resample import resampled

soundfile = pytest.importorskip("soundfile", reason="shipped speech is FLAC (extra audio)")
RATE = 16000
PLAIN = {"language": "en", "temperatures": [0.0]}


@pytest.fixture(scope="module")
def model():
    return zoo.load("whisper-digits").eval()


@pytest.fixture(scope="module")
def spoken():
    """(wave in [-1, 1), what is said)"""
    one = shipped("digits")[4]
    return one.wave / np.float32(32768), one.text


def heard(model, sound):
    return model.transcribe(sound, **PLAIN).text.strip()


def test_rates_and_channels(model, spoken, tmp_path):
    wave, said = spoken
    assert heard(model, wave) == said
    eight = np.stack([wave * (2 * (i % 2)) for i in range(8)])  # every second channel is silent
    assert heard(model, eight) == heard(model, eight.T) == said
    stereo = resampled(torch.from_numpy(wave), RATE, 44100)[:, None].expand(-1, 2)
    assert heard(model, (stereo, 44100)) == said
    soundfile.write(tmp_path / "stereo.flac", stereo.numpy(), 44100)
    soundfile.write(tmp_path / "eight.wav", eight.T, RATE)
    assert [one.text.strip() for one in model.transcribe(
        [tmp_path / "stereo.flac", tmp_path / "eight.wav"], **PLAIN
    )] == [said, said]  # fmt: skip


def test_noise_and_what_is_too_short_to_be_speech(model):
    noise = np.random.default_rng(0).normal(0, 0.1, 6 * RATE).astype(np.float32)
    found = model.transcribe(noise, **PLAIN)
    assert found.seconds == 6.0 and all(0 <= s.start <= s.stop <= 8 for s in found.segments)
    again = model.transcribe(noise, **PLAIN)
    assert found == again
    for samples in (1600, 160, 1):
        short = model.transcribe(noise[:samples], **PLAIN)
        assert short.seconds == pytest.approx(samples // 320 / 50) and len(short.text) < 20


def test_a_file_that_breaks_off(model, spoken, tmp_path):
    path = tmp_path / "cut.wav"
    soundfile.write(path, spoken[0], RATE)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(DataError, match=r"cut\.wav is damaged after \d"):
        model.transcribe(path, **PLAIN)
    with pytest.raises(DataError, match=r"cut\.wav is damaged after \d"):
        next(model.stream(path, **PLAIN))


@pytest.mark.parametrize(
    ("sound", "words"),
    [
        (np.zeros(0, np.float32), "holds no samples"),
        (np.full(RATE, np.nan, np.float32), "NaN or infinite"),
        (np.full(RATE, -np.inf, np.float32), "NaN or infinite"),
        (b"", "cannot be read as sound"),
        ("/no/such/talk.flac", "no such file"),
    ],
    ids=["empty", "nan", "infinite", "no bytes", "no file"],
)
def test_what_is_no_sound_gets_one_sentence(model, sound, words):
    for verb in (model.transcribe, model.translate, model.detect_language):
        with pytest.raises(DataError, match=words) as caught:
            verb(sound)
        assert "\n" not in str(caught.value)
