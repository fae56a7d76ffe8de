"""espeak-ng through ctypes, each shard of utterances in a process of its own.

The synthesiser keeps a random state that only a fresh process resets, so what it says depends on
all that it said before. A shard is one process, one seed, one order; its audio is then the same
bytes on every run. This file is also that process: `python espeak.py`, lines as JSON on stdin,
JSON and samples on stdout. It needs `espeakng-loader` (`pip install multimodal-zoo[speech]`), a
GPL program that is used here and not shipped.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["RATE", "synthesise"]

RATE = 22050  # samples a second, what every voice gives
SEED = 7
_SYNCHRONOUS, _UTF8, _SPEED, _PITCH = 2, 1, 1, 3  # of speak_lib.h
_END, _WORD = 0, 1  # kinds of events


def synthesise(lines: list[dict[str, Any]]) -> list[tuple[bytes, list[float]]]:
    """Returns (16-bit samples, start of each word in seconds) of each line of one shard.

    A line is {"text", "voice", "speed", "pitch"}. Raises: zoo.errors.DataError.
    """
    from zoo.errors import DataError

    command = [sys.executable, str(Path(__file__).resolve())]
    done = subprocess.run(command, input=json.dumps(lines).encode(), capture_output=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise DataError(f"Speech cannot be synthesised: {said[0]}")
    head, _, samples = done.stdout.partition(b"\n")
    found, start = [], 0
    for entry in json.loads(head):
        stop = start + entry["bytes"]
        found.append((samples[start:stop], entry["starts"]))
        start = stop
    return found


# -- the child process -----------------------------------------------------------------------------


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


class _Speaker:
    """The library, initialised once, with what the current utterance has given so far."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            sys.exit("espeakng-loader is missing; pip install 'multimodal-zoo[speech]'.")
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        rate = self.library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)
        if rate != RATE:
            sys.exit(f"espeak-ng gives {rate} samples a second, not {RATE}.")
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
        )
        self.callback = kind(self._take)  # kept, because the library keeps only its address
        self.library.espeak_SetSynthCallback(self.callback)
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(SEED))

    def say(self, text: str, voice: str, speed: int, pitch: int) -> tuple[bytes, list[float]]:
        self.chunks: list[bytes] = []
        self.starts: list[float] = []
        if self.library.espeak_SetVoiceByName(voice.encode()):
            sys.exit(f"espeak-ng knows no voice {voice!r}.")
        self.library.espeak_SetParameter(_SPEED, speed, 0)
        self.library.espeak_SetParameter(_PITCH, pitch, 0)
        words = text.encode() + b"\0"
        self.library.espeak_Synth(words, len(words), 0, 1, 0, _UTF8, None, None)
        self.library.espeak_Synchronize()
        return b"".join(self.chunks), self.starts

    def _take(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self.chunks.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while events and events[index].type != _END:
            if events[index].type == _WORD:
                self.starts.append(events[index].milliseconds / 1000)
            index += 1
        return 0


def _main() -> None:
    speaker = _Speaker()
    spoken = [speaker.say(**line) for line in json.load(sys.stdin)]
    head = [{"bytes": len(samples), "starts": starts} for samples, starts in spoken]
    out = sys.stdout.buffer
    out.write(json.dumps(head).encode() + b"\n")
    out.writelines(samples for samples, _ in spoken)


if __name__ == "__main__":
    _main()
