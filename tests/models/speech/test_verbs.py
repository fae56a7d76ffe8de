"""Transcribing and aligning raw sound with the model that ships, hard inputs among it."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo.data.speech.utterances import shipped
from zoo.errors import ConfigError, DataError
from zoo.models.shipped import ASSETS
from zoo.models.speech.transcript import Word, segments_of

pytest.importorskip("soundfile", reason="shipped speech is FLAC (extra audio)")
RATE = 16000


@pytest.fixture(scope="module")
def model():
    return zoo.load("conformer-ctc-digits")


@pytest.fixture(scope="module")
def spoken():
    return shipped("digits")


def sound(one):
    return one.wave, one.rate


def test_shipped_weights_reach_what_is_written_beside_them(model, spoken):
    from zoo.training.speech.common import edits

    measured = json.loads((ASSETS / "conformer-ctc-digits" / "measured.json").read_text())
    found = model.transcribe([sound(one) for one in spoken])
    wrong = sum(edits(s.text.split(), t.text.split()) for s, t in zip(spoken, found))
    words = sum(len(one.text.split()) for one in spoken)
    assert f"{wrong} of {words} words" in measured["shipped_speech"]["value"]
    late = [
        abs(word.start - start)
        for one, answer in zip(spoken, found)
        if one.text == answer.text
        for word, (_, start, _) in zip(answer.words, one.words)
    ]
    assert np.mean(late) <= 0.06


def test_the_answer_does_not_depend_on_the_batch(model, spoken):
    sounds = [sound(one) for one in spoken[:9]]
    alone = [model.transcribe(one) for one in sounds]
    for size in (2, 9):
        found = model.transcribe(sounds, batch_size=size)
        assert [t.text for t in found] == [t.text for t in alone]
        for a, b in zip(found, alone):
            assert [w.start for w in a.words] == [w.start for w in b.words]


def test_a_transducer_s_answer_does_not_depend_on_the_batch(spoken):
    """Short and long sounds together, the longest in pieces, by greedy search and by prefixes."""
    transducer = zoo.load("conformer-transducer-digits")
    whole = np.concatenate([one.wave for one in spoken[:6]])
    sounds = [sound(one) for one in spoken[6:11]]
    sounds[2:2] = [(whole, RATE), (np.zeros(800, np.int16), RATE)]
    for given in ({}, {"window": 4.0}, {"beams": 2, "window": 4.0}):
        alone = [transducer.transcribe(one, **given) for one in sounds]
        assert sum(len(one.words) for one in alone) > 20
        for size in (2, 7):
            found = transducer.transcribe(sounds, batch_size=size, **given)
            for a, b in zip(found, alone, strict=True):
                assert (a.text, a.seconds) == (b.text, b.seconds)
                for one, two in zip(a.words, b.words, strict=True):
                    assert (one.start, one.stop) == (two.start, two.stop)
                    assert one.probability == pytest.approx(two.probability, abs=1e-4)


def test_a_beam_is_no_worse(model, spoken):
    one = spoken[4]
    found = model.transcribe(sound(one), beams=8)
    assert found.text == one.text and len(found.words) == len(one.text.split())


def test_paths_bytes_and_rates(model, spoken, tmp_path):
    import soundfile

    one = spoken[3]
    path = tmp_path / "digits.wav"
    soundfile.write(path, one.wave, one.rate)
    expected = model.transcribe(sound(one))
    assert model.transcribe(path) == model.transcribe(str(path)) == expected
    assert model.transcribe(path.read_bytes()).text == expected.text
    assert model.transcribe(io.BytesIO(path.read_bytes())).text == expected.text
    eight = np.repeat(one.wave[None], 8, axis=0)  # channels
    assert model.transcribe((eight, one.rate)).text == expected.text
    from torchaudio.functional import resample

    other = resample(torch.from_numpy(one.wave / 32768.0).float(), RATE, 44100)
    assert model.transcribe((other, 44100)).text == expected.text
    assert model.transcribe([path])[0] == expected and model.transcribe([]) == []


def test_alignment_says_when(model, spoken):
    one = spoken[3]
    words = model.align(sound(one), one.text.upper())
    assert [word.text for word in words] == one.text.split()
    for word, (_, start, _) in zip(words, one.words):
        assert abs(word.start - start) <= 0.12
    wrong = model.align(sound(one), " ".join(["nine"] * len(words)))
    assert np.mean([w.probability for w in wrong]) < np.mean([w.probability for w in words])


def test_long_sound_is_read_in_pieces(model, spoken):
    waves = [one.wave for one in spoken[:12]]
    silence = np.zeros(4000, np.int16)
    whole = np.concatenate([part for wave in waves for part in (wave, silence)])
    assert len(whole) / RATE > 15
    said = " ".join(one.text for one in spoken[:12])
    at_once = _errors(said, model.transcribe((whole, RATE), window=None).text)
    for window in (6.0, 7.3):
        found = model.transcribe((whole, RATE), window=window)
        starts = [word.start for word in found.words]
        assert starts == sorted(starts) and found.seconds == len(whole) / RATE
        assert _errors(said, found.text) <= at_once + 1, window


def _errors(said, heard):
    from zoo.training.speech.common import edits

    return edits(said.split(), heard.split())


def test_an_hour_is_encoded_a_window_at_a_time(model, monkeypatch):
    """Pieces reach the encoder one after another, together no longer than a window and its
    context."""
    seen = []

    def encoded(sounds):
        seen.append([len(samples) for samples in sounds])
        return [torch.zeros(len(samples) // 640, 29) for samples in sounds]

    def blocks(sound, rate, seconds=30.0):
        for _ in range(round(sound / seconds)):
            yield torch.zeros(round(seconds * rate))

    monkeypatch.setattr(model, "_encoded", encoded)
    monkeypatch.setattr("zoo.models.speech.pieces.audio_blocks", blocks)
    seconds = []
    found = model.transcribe([3600], batch_size=4, progress=lambda *a: seconds.append(a[0]))[0]
    assert seconds == list(range(120, 3601, 120))
    assert found.seconds == 3600 and found.text == ""
    assert {len(sizes) for sizes in seen} == {1} and max(map(max, seen)) == 130 * RATE
    seen.clear()
    model.transcribe([6] * 9, batch_size=4, window=6)
    assert [len(sizes) for sizes in seen] == [3, 3, 3]  # with 5 s of context, 21 s at once
    seen.clear()
    model.transcribe([3600, 3600], batch_size=4, window=None)
    assert [len(sizes) for sizes in seen] == [2]


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.1])
def test_short_clips_are_defined(model, seconds):
    found = model.transcribe((np.zeros(int(RATE * seconds), np.float32), RATE))
    assert found.text == "" and found.words == []


def test_silence_and_noise_are_defined(model):
    assert model.transcribe((np.zeros(RATE * 3, np.float32), RATE)).text == ""
    noise = np.random.default_rng(0).normal(0, 0.1, RATE * 2).astype(np.float32)
    assert isinstance(model.transcribe((noise, RATE)).text, str)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros(0, np.float32), "holds no samples"),
        (np.full(RATE, np.nan, np.float32), "NaN"),
        ("/no/such/file.wav", "no such file"),
        (b"RIFF....WAVEfmt ", "cannot be read"),
        (7, "A sound is a path"),
    ],
)
def test_what_is_no_sound_gets_one_sentence(model, given, words):
    with pytest.raises(DataError, match=words) as caught:
        model.transcribe((given, RATE) if isinstance(given, np.ndarray) else given)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_named(model, spoken, tmp_path):
    import soundfile

    path = tmp_path / "cut.wav"
    soundfile.write(path, spoken[3].wave, RATE)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(DataError, match=r"cut.wav is damaged"):
        model.transcribe(path)


def test_what_the_model_cannot_do_is_named(model, spoken):
    with pytest.raises(DataError, match="cannot spell '4é'"):
        model.align(sound(spoken[0]), "4é")
    with pytest.raises(DataError, match="no text"):
        model.align(sound(spoken[0]), "  ")
    with pytest.raises(DataError, match="too short"):
        model.align((np.zeros(RATE // 4), RATE), "seven eight nine")
    with pytest.raises(ConfigError, match="at least 1"):
        model.transcribe(sound(spoken[0]), beams=0)
    with pytest.raises(ConfigError, match="give beams"):
        model.transcribe(sound(spoken[0]), score=lambda prefix, label: 0.0)
    transducer = zoo.create("conformer-transducer-digits", "backbone.depth=1", seed=0)
    timed = zoo.create("conformer-transducer-digits", "backbone.depth=1", durations=[1], seed=0)
    with pytest.raises(ConfigError, match="searched greedily"):
        timed.transcribe(sound(spoken[0]), beams=2)
    assert len(transducer.align(sound(spoken[0]), "three")) == 1


def test_the_shipped_transducer_reaches_what_is_written_beside_it(spoken):
    from zoo.training.speech.common import edits

    transducer = zoo.load("conformer-transducer-digits")
    measured = json.loads((ASSETS / "conformer-transducer-digits" / "measured.json").read_text())
    asked = spoken[:12]
    for beams, name in ((1, "first_twelve"), (2, "first_twelve_with_beams")):
        found = transducer.transcribe([sound(one) for one in asked], beams=beams)
        wrong = sum(edits(s.text.split(), t.text.split()) for s, t in zip(asked, found))
        words = sum(len(one.text.split()) for one in asked)
        assert f"{wrong} of {words} words" in measured[name]["value"]
        assert all(0 <= w.start < w.stop <= t.seconds + 0.1 for t in found for w in t.words)


def test_pauses_and_noise_are_not_heard_as_words(model, spoken):
    from zoo.data.speech.pauses import with_pauses, without_speech
    from zoo.training.speech.common import edits

    paused = [with_pauses(one, index, 0.5) for index, one in enumerate(spoken)]
    found = model.transcribe([sound(one) for one in paused])
    wrong = sum(edits(s.text.split(), t.text.split()) for s, t in zip(spoken, found))
    assert wrong <= 5  # of 168
    noises = [without_speech(10_000 + index, RATE) for index in range(40)]
    assert [one.text for one in model.transcribe([sound(one) for one in noises])] == [""] * 40


def test_segments_part_at_pauses():
    words = [Word("a", 0.0, 0.5, 1.0), Word("b", 0.6, 1.0, 1.0), Word("c", 2.5, 3.0, 1.0)]
    found = segments_of(words)
    assert [segment.text for segment in found] == ["a b", "c"]
    assert (found[0].start, found[0].stop) == (0.0, 1.0)


def test_the_tokenizer_travels_with_the_weights(model, tmp_path):
    zoo.save(model, tmp_path)
    back = zoo.load(f"dir:{tmp_path}")
    assert back.tokenizer.encode("seven") == model.tokenizer.encode("seven")
    assert Path(tmp_path / "tokenizer.json").is_file()
