"""Transcripts as files: plain text, SubRip, WebVTT, JSON. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from zoo.errors import ConfigError
from zoo.models.speech.transcript import Segment, Transcript
from zoo.registry.suggest import hint

__all__ = ["WRITERS", "clock", "to_json", "to_srt", "to_txt", "to_vtt", "write_transcript"]


def clock(seconds: float, mark: str = ".", hours: bool = True) -> str:
    """Returns `01:02:03.004`; without `hours` only where there are some."""
    total = max(round(seconds * 1000), 0)
    rest, milliseconds = divmod(total, 1000)
    rest, s = divmod(rest, 60)
    h, m = divmod(rest, 60)
    return f"{h:02d}:" * bool(hours or h) + f"{m:02d}:{s:02d}{mark}{milliseconds:03d}"


def to_txt(transcript: Transcript) -> str:
    """Returns a line per segment; a transcript without segments is one line."""
    lines = [segment.text.strip() for segment in transcript.segments if segment.text.strip()]
    return "\n".join(lines or [transcript.text.strip()]) + "\n"


def to_srt(transcript: Transcript) -> str:
    """Returns SubRip subtitles."""
    blocks = []
    for number, segment in enumerate(_shown(transcript), 1):
        times = f"{clock(segment.start, ',')} --> {clock(segment.stop, ',')}"
        blocks.append(f"{number}\n{times}\n{_cue(segment)}\n")
    return "\n".join(blocks)


def to_vtt(transcript: Transcript) -> str:
    """Returns WebVTT subtitles."""
    blocks = ["WEBVTT\n"]
    for segment in _shown(transcript):
        times = f"{clock(segment.start, hours=False)} --> {clock(segment.stop, hours=False)}"
        blocks.append(f"{times}\n{_cue(segment)}\n")
    return "\n".join(blocks)


def to_json(transcript: Transcript) -> str:
    """Returns everything that is known, as JSON."""
    return json.dumps(transcript.to_mapping(), ensure_ascii=False, indent=2) + "\n"


def _shown(transcript: Transcript) -> Iterator[Segment]:
    return (segment for segment in transcript.segments if segment.text.strip())


def _cue(segment: Segment) -> str:
    # an arrow or an empty line inside a cue would end it
    text = segment.text.strip().replace("-->", "->")
    return "\n".join(line for line in text.splitlines() if line.strip())


WRITERS: dict[str, Callable[[Transcript], str]] = {
    "txt": to_txt,
    "srt": to_srt,
    "vtt": to_vtt,
    "json": to_json,
}


def write_transcript(transcript: Transcript, path: str | Path, format: str | None = None) -> Path:
    """Writes a transcript by renaming a finished file; the format is the ending's unless given.

    Raises: ConfigError for a format that does not exist.
    """
    path = Path(path)
    format = format or path.suffix.removeprefix(".")
    if format not in WRITERS:
        raise ConfigError(
            f"No transcripts are written as {format!r}."
            + hint(format, WRITERS, f"Formats: {', '.join(WRITERS)}.")
        )
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(WRITERS[format](transcript), encoding="utf-8")
    temporary.replace(path)
    return path
