"""The small Whisper that ships, on the speech that ships: voices that it never heard."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch

import zoo
from zoo.data.speech.utterances import shipped
from zoo.models.shipped import ASSETS


@pytest.fixture(scope="module")
def model():
    return zoo.load("whisper-digits", dtype="fp32")


def test_it_hears_what_was_measured(model):
    from torchaudio.functional import edit_distance

    utterances = shipped("digits")
    sounds = [(one.wave, one.rate) for one in utterances]
    found = model.transcribe(sounds, batch_size=48, temperatures=[0.0], words=True)
    pairs = [(one.text.split(), other.text.split()) for one, other in zip(utterances, found)]
    wrong = sum(edit_distance(said, heard) for said, heard in pairs)
    words = sum(len(said) for said, _ in pairs)
    measured = json.loads((ASSETS / "whisper-digits" / "measured.json").read_text())
    assert f"{wrong} of {words} words" in measured["shipped_speech"]["value"]
    late = [
        abs(word.start - start)
        for one, other in zip(utterances, found)
        if [word.text.strip() for word in other.words] == one.text.split()
        for word, (_, start, _) in zip(other.words, one.words)
    ]
    assert len(late) > 60 and np.mean(late) < 0.1


def test_it_hears_nothing_in_silence(model):
    assert model.transcribe(torch.zeros(48000), temperatures=[0.0]).text == ""


def test_the_command_writes_what_is_said(tmp_path, capsys):
    from zoo.cli import main

    for index, one in enumerate(shipped("digits")[:2]):
        soundfile.write(tmp_path / f"{index}.wav", one.wave, one.rate)
    (tmp_path / "2.wav").write_bytes(b"no sound")
    words = ["transcribe", "whisper-digits", *(str(tmp_path / f"{i}.wav") for i in range(3))]
    assert main([*words, "--option", "temperatures=[0.0]"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0].endswith("\tthree") and "2.wav cannot be read as sound" in err
    options = ["--format", "srt", "--format", "json", "--out", str(tmp_path / "out"), "--words"]
    assert main([*words[:3], *options, "--beams", "2", "--batch-size", "1"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"0.srt", "0.json"}
    content = json.loads((tmp_path / "out" / "0.json").read_text())
    assert content["language"] == "en" and content["segments"][0]["words"][0]["text"] == "three"
    assert main([*words[:3], *words[2:3], "--format", "txt"]) == 2
    assert "would both become" in capsys.readouterr().err
    assert main([*words[:3], "--option", "beems=2"]) == 2
    assert "beams" in capsys.readouterr().err


def test_the_command_streams_and_takes_a_draft(tmp_path, capsys):
    from zoo.cli import main

    path = tmp_path / "0.wav"
    one = shipped("digits")[3]
    soundfile.write(path, one.wave, one.rate)
    words = ["transcribe", "whisper-digits", str(path), "--option", "temperatures=[0.0]"]
    assert main(words) == 0
    plain, _ = capsys.readouterr()
    assert main([*words, "--draft", "whisper-digits"]) == 0
    out, err = capsys.readouterr()
    assert out == plain and "draft: 100% of" in err and "tokens a pass" in err
    assert main([*words, "--stream", "--draft", "whisper-digits"]) == 0
    lines = capsys.readouterr()[0].splitlines()
    assert " --> " in lines[0]
    assert " ".join(line.split("\t")[1] for line in lines).split() == plain.split()
    assert main([*words, "--stream", "--json"]) == 2
    assert main([*words, "--draft", "conformer-ctc-digits"]) == 2
    assert "a ctc model guesses nothing for a whisper" in capsys.readouterr()[1]
    path.write_bytes(b"no sound")
    assert main([*words, "--stream"]) == 1
    assert "cannot be read as sound" in capsys.readouterr()[1]
    other = ["transcribe", "conformer-ctc-digits", str(path), "--stream"]
    assert main(other) == 2 and "cannot stream" in capsys.readouterr()[1]


def test_it_is_exported_in_the_public_layout(model, tmp_path):
    from transformers import WhisperForConditionalGeneration

    zoo.save(model, tmp_path, format="transformers-whisper")
    theirs = WhisperForConditionalGeneration.from_pretrained(tmp_path, dtype="float32").eval()
    features = torch.randn(1, 64, 200, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([model.config.layout.prompt("en", "transcribe", False)])
    with torch.inference_mode():
        expected = theirs(input_features=features, decoder_input_ids=tokens).logits
        back = zoo.load(f"dir:{tmp_path}", dtype="fp32")
        found = back(features, tokens).logits
    assert back.config.sound.fill == "silence"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
