"""What `zoo export` writes of a Whisper is what CTranslate2 (and so faster-whisper) converts: it
writes the same tokens for the same sound and hears the same language."""

from __future__ import annotations

import ctranslate2
import pytest
import torch

import zoo
from zoo.cli import main
from zoo.data.speech.utterances import shipped
from zoo.models.whisper.decode import decode_windows, detect
from zoo.models.whisper.options import speech_options
from zoo.models.whisper.rules import suppressed

pytest.importorskip("transformers")
HEARD = 6


def converted(folder):
    """CTranslate2's model of what is in a folder's `public`."""
    converter = ctranslate2.converters.TransformersConverter(str(folder / "public"))
    converter.convert(str(folder / "ct2"))
    where = {"device": "cpu", "compute_type": "float32", "intra_threads": 1}
    return ctranslate2.models.Whisper(str(folder / "ct2"), **where)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(our model, CTranslate2's of what the command exported, features of some utterances)"""
    folder = tmp_path_factory.mktemp("handover")
    assert main(["export", "whisper-digits", str(folder / "public"), "--dtype", "fp32"]) == 0
    theirs = converted(folder)
    ours = zoo.load("whisper-digits", dtype="fp32").eval()
    sounds = [(one.wave, one.rate) for one in shipped("digits")[:HEARD]]
    return ours, theirs, ours.sound.windows(sounds)


@pytest.mark.parametrize("times", [False, True])
def test_ctranslate2_writes_the_same(both, times):
    ours, theirs, features = both
    prompt = ours.config.layout.prompt("en", "transcribe", times)
    wanted = speech_options({"times": times, "suppress": [], "suppress_blank": False})
    with torch.inference_mode():
        found = decode_windows(ours, ours.encode(features), [prompt] * HEARD, wanted)
    answers = theirs.generate(
        ctranslate2.StorageView.from_array(features.numpy()),
        [prompt] * HEARD,
        beam_size=1,
        suppress_blank=False,
        suppress_tokens=[],
        return_no_speech_prob=True,
    )
    assert [one.sequences_ids[0] for one in answers] == [one.tokens for one in found]
    assert any(len(one.tokens) > 3 for one in found)
    for a, b in zip(answers, found):
        assert a.no_speech_prob == pytest.approx(b.no_speech, abs=1e-4)


@torch.inference_mode()
def test_ctranslate2_hears_the_same_language(pair, sound, tmp_path):
    """Of a model with Whisper's whole vocabulary, which is how CTranslate2 tells that it has
    languages."""
    ours = pair[1]
    zoo.save(ours, tmp_path / "public", format="transformers-whisper")
    theirs = converted(tmp_path)
    features = ours.sound.windows(sound)
    (expected,) = detect(ours, ours.encode(features))
    found = theirs.detect_language(ctranslate2.StorageView.from_array(features.numpy()))[0]
    assert {code[2:-2]: share for code, share in found} == pytest.approx(expected, abs=1e-5)
    code = next(iter(expected))
    prompt = ours.config.layout.prompt(code, "transcribe", True)
    wanted = speech_options({"max_new_tokens": 20})
    (text,) = decode_windows(ours, ours.encode(features), [prompt], wanted)
    (answer,) = theirs.generate(
        ctranslate2.StorageView.from_array(features.numpy()), [prompt], beam_size=1,
        suppress_tokens=suppressed(ours.config.layout, ours.tokenizer, [-1]), max_length=40,
    )  # fmt: skip
    assert answer.sequences_ids[0] == text.tokens[: len(answer.sequences_ids[0])]
    assert len(answer.sequences_ids[0]) > 10


@torch.inference_mode()
def test_transformers_never_writes_what_is_not_said(tmp_path):
    """A model whose best token is now and then a sign that nobody says: what the export tells of
    such tokens keeps transformers from writing it, as our own rules keep us."""
    from transformers import WhisperForConditionalGeneration

    ours = zoo.load("whisper-digits", dtype="fp32").eval()
    (sign,), (said,) = (ours.tokenizer.encode(text, special=False) for text in ("/", " four"))
    table = ours.embedding.table.weight
    table[sign] = 1.05 * table[said]
    zoo.save(ours, tmp_path, format="transformers-whisper")
    theirs = WhisperForConditionalGeneration.from_pretrained(tmp_path).eval()
    sounds = [(one.wave, one.rate) for one in shipped("digits")[:HEARD]]
    features = ours.sound.windows(sounds)
    plain = {"temperatures": [0.0], "times": False, "language": "en"}
    expected = [one.text.strip() for one in ours.transcribe(sounds, **plain)]
    asked = {"language": "en", "task": "transcribe"}
    found = [ours.text_of(row).strip() for row in theirs.generate(features, **asked).tolist()]
    assert found == expected and any("four" in text for text in found)
    theirs.generation_config.suppress_tokens = None
    assert any(sign in row for row in theirs.generate(features, **asked).tolist())
