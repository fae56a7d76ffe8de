"""Transcripts on paper."""

from __future__ import annotations

import json

import pytest

from zoo.errors import ConfigError
from zoo.models.speech.transcript import Segment, Transcript, Word
from zoo.models.speech.writers import WRITERS, clock, write_transcript

WORDS = (Word(" Hello", 0.0, 0.5, 0.9), Word(" there.", 0.5, 1.25, 0.8))
TRANSCRIPT = Transcript(
    " Hello there. So --> it goes.",
    4000.0,
    (
        Segment(" Hello there.", 0.0, 1.25, WORDS, (1, 2), {"no_speech": 0.1}),
        Segment("", 1.25, 2.0),
        Segment(" So --> it\n\ngoes.", 3661.5, 3662.0),
    ),
    {},
    "en",
)
TEXTS = {
    "txt": "Hello there.\nSo --> it\n\ngoes.\n",
    "srt": "1\n00:00:00,000 --> 00:00:01,250\nHello there.\n\n"
    "2\n01:01:01,500 --> 01:01:02,000\nSo -> it\ngoes.\n",
    "vtt": "WEBVTT\n\n00:00.000 --> 00:01.250\nHello there.\n\n"
    "01:01:01.500 --> 01:01:02.000\nSo -> it\ngoes.\n",
}


@pytest.mark.parametrize("format", TEXTS)
def test_text_and_subtitles(format):
    assert WRITERS[format](TRANSCRIPT) == TEXTS[format]


def test_json_holds_everything(tmp_path):
    found = json.loads(write_transcript(TRANSCRIPT, tmp_path / "a.json").read_text())
    assert found["language"] == "en" and found["text"] == TRANSCRIPT.text
    first = found["segments"][0]
    assert first["words"][0] == {"text": " Hello", "start": 0, "stop": 0.5, "probability": 0.9}
    assert first["tokens"] == [1, 2] and first["no_speech"] == 0.1


def test_what_is_written_whole_is_renamed(tmp_path):
    path = write_transcript(TRANSCRIPT, tmp_path / "a.SRT", "srt")
    assert path.read_text() == TEXTS["srt"] and [p.name for p in tmp_path.iterdir()] == ["a.SRT"]
    with pytest.raises(ConfigError, match=r"as .doc..*txt, srt, vtt, json"):
        write_transcript(TRANSCRIPT, tmp_path / "a.doc")


def test_a_transcript_without_segments_is_a_line():
    assert WRITERS["txt"](Transcript("one two", 1.0)) == "one two\n"
    assert WRITERS["srt"](Transcript("one two", 1.0)) == ""


def test_clock():
    assert clock(59.9996) == "00:01:00.000" and clock(-1, hours=False) == "00:00.000"
