"""Long sounds, against openai-whisper's `transcribe`: the same segments, words and times."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from zoo.errors import ConfigError, DataError
from zoo.models.whisper.words import median_filter, split_words, warp

# Random weights are never sure of anything: their text is taken as it is.
TAKE_ALL = {
    "temperatures": [0.0],
    "log_probability": None,
    "compression": None,
    "no_speech": None,
    "max_new_tokens": 30,
}
THEIRS = {
    "temperature": (0.0,),
    "logprob_threshold": None,
    "compression_ratio_threshold": None,
    "no_speech_threshold": None,
    "sample_len": 30,
    "fp16": False,
}


def expected(model, sound, **given):
    import whisper

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return whisper.transcribe(model, sound, **{**THEIRS, **given})


def segments(theirs):
    """openai-whisper's segments as plain values, and ours."""
    if isinstance(theirs, dict):
        return [
            (
                one["start"],
                one["end"],
                one["text"],
                one["tokens"],
                [(w["word"], w["start"], w["end"]) for w in one.get("words", [])],
            )
            for one in theirs["segments"]
        ]
    return [
        (
            one.start,
            one.stop,
            one.text,
            list(one.tokens),
            [(word.text, word.start, word.stop) for word in one.words],
        )
        for one in theirs.segments
    ]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({}, {"condition": True}),
        ({"condition_on_previous_text": False}, {}),
        ({"initial_prompt": "Ask, ask."}, {"prompt": "Ask, ask.", "condition": True}),
        (
            {"initial_prompt": "Ask.", "carry_initial_prompt": True},
            {"prompt": "Ask.", "keep_prompt": True, "condition": True},
        ),
        ({"clip_timestamps": [3, 20.5, 40]}, {"clips": [3.0, 20.5, 40.0], "condition": True}),
        ({"beam_size": 2, "language": "fr"}, {"beams": 2, "language": "French", "condition": True}),
    ],
)
def test_segments_are_openais(pair, sound, theirs, ours):
    wanted = expected(pair[0], sound, **theirs)
    found = pair[1].transcribe(sound, **TAKE_ALL, **ours)
    assert len(found.segments) > 5 and segments(found) == segments(wanted)
    assert (found.text, found.language) == (wanted["text"], wanted["language"])
    assert found.seconds == 80.0


def test_fallback_is_openais(pair, sound):
    """A window that repeats itself is drawn at higher temperatures, with the same generator."""
    theirs = {
        "temperature": (0.0, 0.6),
        "compression_ratio_threshold": 1.1,
        "logprob_threshold": -20.0,
        "no_speech_threshold": 0.6,
    }
    ours = {
        **TAKE_ALL,
        "temperatures": [0.0, 0.6],
        "compression": 1.1,
        "log_probability": -20.0,
        "no_speech": 0.6,
        "condition": True,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        wanted = expected(pair[0], sound[: 40 * 16000], **theirs)
        torch.manual_seed(1)
        found = pair[1].transcribe(sound[: 40 * 16000], **ours)
    assert segments(found) == segments(wanted)
    assert 0.6 in {one["temperature"] for one in wanted["segments"]}
    for one, two in zip(found.segments, wanted["segments"]):
        assert one.scores["temperature"] == two["temperature"]
        assert one.scores["compression"] == two["compression_ratio"]


@pytest.mark.parametrize("silence", [None, 12.0])
def test_words_are_openais(pair, sound, silence):
    sound = sound[: 20 * 16000]
    given = {"word_timestamps": True, "hallucination_silence_threshold": silence, "sample_len": 8}
    wanted = expected(pair[0], sound, **given)
    options = {**TAKE_ALL, "max_new_tokens": 8, "condition": True, "silence": silence}
    found = pair[1].transcribe(sound, words=True, **options)
    assert segments(found) == segments(wanted)
    pairs = zip(found.words, [w for one in wanted["segments"] for w in one["words"]], strict=True)
    for ours, theirs in pairs:
        assert ours.probability == pytest.approx(theirs["probability"], abs=1e-4)
        assert 0 <= ours.start <= ours.stop


def test_many_sounds_are_as_one_by_one(pair, sound):
    model = pair[1]
    sounds = [sound[: 30 * 16000], sound[7000 : 20 * 16000], sound[: 50 * 16000 : 2]]
    alone = [model.transcribe(one, **TAKE_ALL, condition=True) for one in sounds]
    for batch_size in (2, 3):
        done = []
        found = model.transcribe(
            sounds,
            **TAKE_ALL,
            condition=True,
            batch_size=batch_size,
            progress=lambda *seconds, into=done: into.append(seconds),
        )
        assert [segments(one) for one in found] == [segments(one) for one in alone]
        assert done[-1] == pytest.approx((30 + 20 - 7 / 16 + 25,) * 2, abs=0.02) and len(done) > 1


def test_segments_stream_as_they_are_heard(pair, sound):
    model = pair[1]
    sound = sound[: 30 * 16000]
    whole = model.transcribe(sound, **TAKE_ALL)
    stream = model.stream(sound, **TAKE_ALL)
    first = next(stream)
    assert first == whole.segments[0]
    assert [first, *stream] == [one for one in whole.segments if one.text]


# -- silence and hostile sounds --------------------------------------------------------------------


def test_what_is_probably_silence_is_left_out(pair):
    """Where no speech is likelier than the threshold and the text unsure, nothing is written."""
    silence = torch.zeros(70 * 16000)
    options = {"temperatures": [0.0], "max_new_tokens": 10, "log_probability": 0.0}
    found = pair[1].transcribe(silence, no_speech=0.0, **options)
    assert found.text == "" and found.segments == () and found.seconds == 70.0
    heard = pair[1].transcribe(silence, no_speech=1.0, **{**options, "log_probability": None})
    assert heard.segments


@pytest.mark.parametrize("samples", [1, 100, 1600, 479_999])
def test_short_sounds_have_a_result(pair, samples):
    found = pair[1].transcribe(torch.randn(samples) * 0.1, **TAKE_ALL)
    assert found.seconds == samples // 160 / 100
    assert all(0 <= one.start <= one.stop <= 60 for one in found.segments)


def test_no_sound(pair):
    with pytest.raises(DataError, match="holds no samples"):
        pair[1].transcribe(np.zeros(0, np.float32))
    with pytest.raises(DataError, match="NaN"):
        pair[1].transcribe([np.full(9, np.nan)])
    with pytest.raises(ConfigError, match="batch_size"):
        pair[1].transcribe([], batch_size=0)
    assert pair[1].transcribe([]) == []


def test_translating_is_a_task(pair, sound):
    model = pair[1]
    found = model.translate(sound[:80000], language="de", **TAKE_ALL)
    same = model.transcribe(sound[:80000], language="de", task="translate", **TAKE_ALL)
    other = model.transcribe(sound[:80000], language="de", **TAKE_ALL)
    assert segments(found) == segments(same) != segments(other)


# -- parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 3), (30, 200)])
def test_the_way_through_a_matrix_is_openais(shape):
    from whisper.timing import dtw_cpu

    cost = np.random.default_rng(0).standard_normal(shape)
    if shape == (7, 3):
        cost = np.round(cost)  # ties
    rows, columns = warp(cost)
    theirs = dtw_cpu(cost)
    assert rows.tolist() == theirs[0].tolist() and columns.tolist() == theirs[1].tolist()


@pytest.mark.parametrize("length", [3, 4, 50])
def test_medians_are_openais(length):
    from whisper.timing import median_filter as theirs

    x = torch.randn(2, 5, length)
    assert torch.equal(median_filter(x, 7), theirs(x, 7))


def test_words_are_split_as_openai_splits_them(pair):
    from whisper.tokenizer import get_tokenizer

    texts = [" Hello, world! It's (nearly) 10:30.", "你好，世界", " naïve café 🙂 ok", "ไทย ไม่"]
    for language in ("en", "zh"):
        theirs = get_tokenizer(True, language=language)
        for text in texts:
            tokens = [*theirs.encode(text), theirs.eot]
            words, parts = theirs.split_to_word_tokens(tokens)
            assert split_words(pair[1], tokens, language) == list(zip(words, parts))
