"""Utterances: what was said, the waveform, and when each word was."""

# n samples of sound

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from zoo.data.speech.espeak import RATE, synthesise
from zoo.data.speech.grammar import GRAMMARS, Line, lines
from zoo.errors import DataError

__all__ = ["SHARD", "Utterance", "shard_hashes", "shipped", "speak"]

SHARD = 200  # utterances that one process of the synthesiser says
HASHES = Path(__file__).parent / "hashes.json"
ASSETS = Path(__file__).parent.parent.parent / "assets" / "speech"


@dataclass(frozen=True)
class Utterance:
    """One of them; times are in seconds."""

    text: str
    voice: str
    rate: int
    wave: np.ndarray  # n, int16
    starts: tuple[float, ...]  # of each word
    stop: float  # of the last word

    @property
    def words(self) -> list[tuple[str, float, float]]:
        """(word, start, stop) of each word: where the synthesiser began it and the next one."""
        stops = (*self.starts[1:], self.stop)
        return list(zip(self.text.split(), self.starts, stops, strict=True))

    @property
    def seconds(self) -> float:
        return len(self.wave) / self.rate


def speak(grammar: str, split: str, count: int) -> list[Utterance]:
    """Returns the first `count` utterances of a split ("train" or "test"), at 22 050 Hz.

    200 of them take some 0.5 s. What comes out is compared with the hashes of what zoo's numbers
    were measured on; other audio (another version of the synthesiser) is a warning.
    Raises: DataError.
    """
    if grammar not in GRAMMARS or split not in ("train", "test"):
        raise DataError(
            f"There is no spoken {grammar}/{split}; {', '.join(GRAMMARS)}; train, test."
        )
    whole = -(-count // SHARD) * SHARD
    planned = lines(grammar, split, whole)
    known, found = shard_hashes().get(f"{grammar}/{split}", []), []
    for number in range(whole // SHARD):
        shard = _shard(planned[number * SHARD : (number + 1) * SHARD])
        if number < len(known) and digest(shard) != known[number]:
            warnings.warn(
                f"Shard {number} of the spoken {grammar}/{split} sounds other than it did where "
                "zoo was measured (another espeak-ng?); numbers may differ.",
                stacklevel=2,
            )
        found += shard
    return found[:count]


def _shard(planned: list[Line]) -> list[Utterance]:
    found = []
    for line, (samples, starts) in zip(planned, synthesise([asdict(p) for p in planned])):
        if len(starts) != len(line.text.split()):
            raise DataError(f"espeak-ng timed {len(starts)} words in {line.text!r}.")
        wave = np.frombuffer(samples, dtype="<i2").astype(np.int16)
        found.append(Utterance(line.text, line.voice, RATE, wave, tuple(starts), len(wave) / RATE))
    return found


def digest(utterances: list[Utterance]) -> str:
    """Returns the sha256 of what was said and how it sounded."""
    state = hashlib.sha256()
    for one in utterances:
        state.update(f"{one.text}|{one.voice}|".encode() + one.wave.astype("<i2").tobytes())
    return state.hexdigest()


@cache
def shard_hashes() -> dict[str, list[str]]:
    """Returns "grammar/split" -> sha256 of its first shards, as tools/write_speech.py stored
    them."""
    return json.loads(HASHES.read_text()) if HASHES.is_file() else {}


@cache
def shipped(grammar: str = "digits") -> tuple[Utterance, ...]:
    """Returns the utterances that ship with zoo: test voices, 16 kHz, of the grammar's test split.

    Needs soundfile. Raises: DataError.
    """
    try:
        import soundfile
    except ImportError:
        raise DataError("Shipped speech needs soundfile; pip install soundfile.") from None
    try:
        index = json.loads((ASSETS / f"{grammar}.json").read_text())
        wave, rate = soundfile.read(ASSETS / f"{grammar}.flac", dtype="int16")
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"The speech in {ASSETS} cannot be read ({error}).") from None
    return tuple(
        Utterance(
            one["text"],
            one["voice"],
            rate,
            wave[one["first"] : one["last"]],
            tuple(one["starts"]),
            (one["last"] - one["first"]) / rate,
        )
        for one in index
    )
