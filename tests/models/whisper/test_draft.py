"""A draft changes nothing of what is written: rules, times, scores and long sounds among it."""

from __future__ import annotations

import pytest
import torch

import zoo
from tests.models.whisper.test_longform import TAKE_ALL, segments
from zoo.data.speech.utterances import shipped
from zoo.errors import ConfigError
from zoo.models.whisper.draft import Drafting


@pytest.fixture(scope="module")
def model():
    return zoo.load("whisper-digits", dtype="fp32").eval()


def shaken(model, amount):
    """A copy that is wrong now and then."""
    other = zoo.load("whisper-digits", dtype="fp32").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in other.decoder.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(amount * parameter.std() * noise if parameter.numel() > 1 else 0)
    return other


@pytest.fixture(scope="module")
def talk():
    """Some 6 s: windows of 4 s are cut by times."""
    parts = [torch.from_numpy(one.wave) for one in shipped("digits")[:4]]
    return torch.cat([part for wave in parts for part in (wave, wave.new_zeros(3000))])


@pytest.mark.parametrize(
    "given",
    [
        {"temperatures": [0.0]},
        {"temperatures": [0.0], "words": True, "condition": True, "prompt": "one"},
        {"temperatures": [0.0], "times": False, "suppress": [5]},
        {"temperatures": [0.0, 0.6], "seed": 1, "log_probability": -0.05},
    ],
)
def test_segments_are_those_without_it(model, talk, given):
    plain = model.transcribe((talk, 16000), language="en", **given)
    wrong = shaken(model, 0.4)
    for draft in (model, wrong):
        found = model.transcribe((talk, 16000), language="en", draft=draft, **given)
        assert segments(found) == segments(plain) and found.text == plain.text
        for one, two in zip(found.segments, plain.segments, strict=True):
            assert one.scores == pytest.approx(two.scores, abs=1e-4)
        report = model.report
        if draft is model:
            assert report.guessed and report.acceptance == 1.0
    assert 0 < report.acceptance < 1  # of the one that is wrong now and then


def test_random_weights_with_whispers_vocabulary(pair, sound):
    """Every rule of timestamps, many times, and no end before the limit."""
    model = pair[1]
    shape = {"encoder.depth": 1, "decoder.depth": 1, "alignment_heads": []}
    draft = zoo.create("whisper-tiny", shape, seed=0).eval()
    plain = model.transcribe(sound[: 20 * 16000], **TAKE_ALL)
    found = model.transcribe(sound[: 20 * 16000], draft=draft, **TAKE_ALL)
    assert segments(found) == segments(plain) and model.report.guessed
    batch = model.transcribe([sound[:80000], sound[: 20 * 16000]], draft=model, **TAKE_ALL)
    assert segments(batch[1]) == segments(plain) and model.report.acceptance > 0.9
    streamed = model.stream(sound[: 20 * 16000], draft=model, **TAKE_ALL)
    assert [one.tokens for one in streamed] == [one.tokens for one in found.segments if one.text]


def test_an_encoder_with_the_same_weights_is_run_once(model):
    assert Drafting(model, shaken(model, 0.4), None).shared
    other = zoo.load("whisper-digits", dtype="fp32")
    with torch.no_grad():
        other.encoder.final_norm.bias[0] += 1
    assert not Drafting(model, other, None).shared


def test_who_cannot_guess_is_refused(model, talk):
    for draft, words in (
        (zoo.create("whisper-tiny", device="meta"), "vocabulary and languages"),
        (zoo.create("conformer-ctc-digits", device="meta"), "a ctc model guesses nothing"),
        ("whisper-tiny", "a str model guesses nothing"),
    ):
        with pytest.raises(ConfigError, match=words):
            model.transcribe((talk, 16000), draft=draft)
    with pytest.raises(ConfigError, match="takes no beams"):
        model.transcribe((talk, 16000), draft=model, beams=2)
