"""The spoken data: the same bytes on every run, unseen voices in the test split, words in time."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zoo.data.speech import utterances
from zoo.data.speech.augment import spec_augment
from zoo.data.speech.grammar import GRAMMARS, TEST_VARIANTS, TRAIN_VARIANTS, lines
from zoo.data.speech.schema import SpecAugment
from zoo.data.speech.utterances import SHARD, digest, shard_hashes, shipped, speak
from zoo.errors import DataError
from zoo.registry import build, resolve

pytest.importorskip("soundfile", reason="shipped speech is FLAC (extra audio)")


@pytest.fixture(scope="module")
def spoken():
    pytest.importorskip("espeakng_loader", reason="speech is synthesised by the extra speech")
    return speak("digits", "test", SHARD)


def test_test_voices_are_heard_nowhere_in_training():
    assert not set(TEST_VARIANTS) & set(TRAIN_VARIANTS)
    for grammar in GRAMMARS:
        heard = {line.voice.partition("+")[2] for line in lines(grammar, "train", 4000)}
        other = {line.voice.partition("+")[2] for line in lines(grammar, "test", 400)}
        assert heard == set(TRAIN_VARIANTS) and other == set(TEST_VARIANTS)


def test_test_voices_are_other_files_than_those_of_training():
    loader = pytest.importorskip("espeakng_loader")
    from pathlib import Path

    folder = Path(loader.get_data_path()) / "voices" / "!v"
    text = {v: _settings(folder / v) for v in TRAIN_VARIANTS + TEST_VARIANTS}
    for variant in TEST_VARIANTS:
        assert text[variant] not in [text[v] for v in TRAIN_VARIANTS], variant


def _settings(file):
    lines = file.read_text(errors="replace").splitlines()
    return [line.split() for line in lines if line.split()[:1] not in ([], ["name"], ["language"])]


def test_more_lines_begin_with_the_same_ones():
    assert lines("digits", "train", 300)[:200] == lines("digits", "train", 200)
    assert lines("digits", "train", 50) != lines("digits", "test", 50)


def test_the_audio_is_what_the_numbers_were_measured_on(spoken):
    assert digest(spoken) == shard_hashes()["digits/test"][0]


def test_other_audio_is_noticed(monkeypatch):
    pytest.importorskip("espeakng_loader")
    monkeypatch.setattr(utterances, "shard_hashes", lambda: {"commands/test": ["0" * 64]})
    with pytest.warns(UserWarning, match="sounds other than"):
        speak("commands", "test", 1)


def test_words_stand_one_after_another(spoken):
    for one in spoken:
        times = [time for _, start, stop in one.words for time in (start, stop)]
        assert times == sorted(times) and times[0] == 0.0 and times[-1] == one.seconds
        assert [word for word, _, _ in one.words] == one.text.split()
    # a word begins with sound: what is cut out at its start is louder than silence
    levels = [np.abs(_cut(o, s, e)).mean() for o in spoken[:20] for _, s, e in o.words]
    assert min(levels) > 100


def _cut(one, start, stop):
    return one.wave[int(start * one.rate) : int(stop * one.rate)].astype(float)


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_shipped_speech_is_the_start_of_the_test_split(grammar):
    ours = shipped(grammar)
    planned = lines(grammar, "test", len(ours))
    assert [(one.text, one.voice) for one in ours] == [(p.text, p.voice) for p in planned]
    assert all(one.rate == 16000 and one.words[-1][2] == one.seconds for one in ours)
    assert 25 < sum(one.seconds for one in ours) < 180


def test_shipped_speech_is_what_the_synthesiser_says(spoken):
    from torchaudio.functional import resample

    for one, other in zip(shipped("digits")[:5], spoken):
        wave = resample(torch.from_numpy(other.wave / 32768.0), other.rate, one.rate)
        assert (wave - torch.from_numpy(one.wave / 32768.0)).abs().max() < 1e-4
        assert one.starts == other.starts


@pytest.fixture(scope="module")
def dataset(spoken):
    model = SimpleNamespace(
        sound=build(resolve("tokenizer", "filterbank"), width=8),
        tokenizer=build(resolve("tokenizer", "letters")),
    )
    changes = SpecAugment(frequency_masks=2, time_masks=2, noise=0.1, tilt=0.2)
    from zoo.data.speech.spoken import SpokenSentences

    return SpokenSentences(spoken[:8], model, changes)


def test_a_batch_is_its_samples_filled_up(dataset):
    whole = dataset.batch(range(8))
    assert whole["texts"] == dataset.texts
    for row in range(8):
        alone = dataset.batch([row])
        t, u = int(alone["lengths"][0]), int(alone["target_lengths"][0])
        assert torch.equal(whole["features"][row, :t], alone["features"][0])
        assert not whole["features"][row, t:].any()
        assert torch.equal(whole["targets"][row, :u], alone["targets"][0])


def test_changes_depend_on_the_seed_alone(dataset):
    seeds = torch.arange(8) + 3
    first, again = dataset.batch(range(8), seeds), dataset.batch(range(8), seeds)
    alone = dataset.batch([5], seeds[5:6])
    t = int(alone["lengths"][0])
    assert torch.equal(first["features"], again["features"])
    assert torch.allclose(first["features"][5, :t], alone["features"][0], atol=1e-5)
    assert not torch.equal(first["features"], dataset.batch(range(8), seeds + 1)["features"])


def test_masks_blank_out_no_more_than_they_may():
    ones, lengths, seeds = torch.ones(50, 100, 40), torch.full((50,), 80), torch.arange(50)
    config = SpecAugment(frequency_masks=2, frequency_width=6, time_masks=3, time_width=0.1)
    found = spec_augment(ones, lengths, seeds, config)
    bands = (found[:, :80].amax(1) == 0).sum(1)
    stretches = (found[:, :80].amax(2) == 0).sum(1)
    assert 0 < bands.max() <= 12 and 0 < stretches.max() <= 24
    assert not found[:, 80:].any()
    assert torch.equal(spec_augment(ones, lengths, seeds, SpecAugment())[:, :80], ones[:, :80])


def test_bad_questions_get_one_sentence():
    with pytest.raises(DataError, match="no spoken digits/dev"):
        speak("digits", "dev", 1)
    with pytest.raises(DataError, match="a model that hears"):
        from zoo.data.speech.spoken import SpokenSentences

        SpokenSentences([], object(), SpecAugment())


def test_a_missing_synthesiser_is_named(monkeypatch):
    from zoo.data.speech import espeak

    monkeypatch.setattr(espeak.sys, "executable", "/bin/false")
    with pytest.raises(DataError, match="cannot be synthesised"), warnings.catch_warnings():
        espeak.synthesise([])


def test_pauses_move_words_and_change_none_of_them():
    from zoo.data.speech.pauses import with_pauses

    one = shipped("digits")[3]
    paused, again, other = (with_pauses(one, seed, 0.5) for seed in (1, 1, 2))
    assert np.array_equal(paused.wave, again.wave) and len(paused.wave) != len(other.wave)
    assert paused.text == one.text and len(paused.wave) > len(one.wave)
    for index, (new, old) in enumerate(zip(paused.words, one.words)):
        first, last = int(old[1] * one.rate), int(old[2] * one.rate)
        start = round(new[1] * one.rate)
        same = paused.wave[start : start + last - first - 2]
        assert np.array_equal(same, one.wave[first : last - 2]), index
    assert paused.words[-1][2] <= paused.seconds
