"""Files of sound to samples, by whatever is installed that knows their format.

| tried  | reads                                        | comes with                          |
|--------|----------------------------------------------|-------------------------------------|
| first  | wav, flac, ogg (Vorbis, Opus), mp3, aiff, …  | soundfile, the extra `audio`        |
| second | m4a and everything else, also out of videos  | PyAV (`pip install av`)             |
| third  | the same                                     | the program `ffmpeg`, where present |

Nothing is chosen by a file's ending. A library that is installed and does not load counts as
missing; the error says why.
"""

# n samples, c channels

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np

from zoo.errors import DataError

__all__ = ["decoded"]

BLOCK = 1 << 14  # samples read at a time
# What headers say from here on is no length: streams that were never finished promise the largest.
UNKNOWN = (1 << 31) - 4096
Blocks = Iterator[np.ndarray]  # (n c) float32


class NotMine(Exception):
    """A decoder does not know this format, or is not there; says which."""


def decoded(file: BinaryIO, name: str, rate: int) -> tuple[int, Blocks]:
    """Returns (sampling rate, blocks of samples (n c)) of an open, seekable file.

    `rate` is what the caller will resample to, which the last decoder does itself.

    Raises: DataError when nothing here reads it; the blocks raise it where a file is damaged.
    """
    reasons = []
    for decoder in (_by_soundfile, _by_av, _by_ffmpeg):
        file.seek(0)
        try:
            return decoder(file, name, rate)
        except NotMine as reason:
            reasons.append(str(reason))
    raise DataError(f"{name} cannot be read as sound: {'; '.join(reasons)}.")


# -- soundfile -------------------------------------------------------------------------------------


def _by_soundfile(file: BinaryIO, name: str, rate: int) -> tuple[int, Blocks]:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: installed without its shared library
        raise NotMine(_missing("soundfile", "multimodal-zoo[audio]", error)) from None

    class Forward(soundfile.SoundFile):
        """A file that is only read on: soundfile seeks after every read of what it believes
        seekable, and in an mp3 that lands elsewhere (libsndfile 1.2.2)."""

        def seekable(self) -> bool:
            return False

    try:
        opened = Forward(file)
    except (soundfile.SoundFileError, TypeError):
        raise NotMine("soundfile finds no wav, flac, ogg or mp3 in it") from None

    def blocks() -> Blocks:
        read, promised = 0, opened.frames
        cut = _cut_short(opened.extra_info)
        with opened:
            while True:
                try:
                    block = opened.read(BLOCK, dtype="float32", always_2d=True)
                except (soundfile.SoundFileError, RuntimeError) as error:
                    raise _damaged(name, read / opened.samplerate, error) from None
                if not len(block):
                    break
                read += len(block)
                yield block
        if read < promised < UNKNOWN or cut:
            raise _damaged(name, read / opened.samplerate, "the rest is missing")

    return opened.samplerate, blocks()


def _cut_short(log: str) -> bool:
    """Returns whether libsndfile's log of a wav header says that it promises more than there is,
    which it otherwise passes over."""
    found = re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    return found is not None and int(found[2]) < int(found[1]) < UNKNOWN


# -- PyAV ------------------------------------------------------------------------------------------


def _by_av(file: BinaryIO, name: str, rate: int) -> tuple[int, Blocks]:
    try:
        import av
    except (ImportError, OSError) as error:
        raise NotMine(_missing("PyAV", "av", error)) from None
    try:
        container = av.open(file, metadata_errors="ignore")
        stream = next(iter(container.streams.audio), None)
    except (av.error.FFmpegError, ValueError):
        raise NotMine("nor does PyAV find a sound") from None
    if stream is None:
        raise NotMine("PyAV finds no sound track")

    def blocks() -> Blocks:
        seconds = 0.0
        assert isinstance(container, av.container.InputContainer)
        planar = av.AudioResampler(format="fltp")  # the type of numbers; rate and channels stay
        with container:
            try:
                for frame in container.decode(stream):
                    for part in planar.resample(frame):
                        seconds += part.samples / stream.rate
                        yield part.to_ndarray().T
                for part in planar.resample(None):
                    yield part.to_ndarray().T
            except av.error.FFmpegError as error:
                raise _damaged(name, seconds, error) from None

    return stream.rate, blocks()


# -- the program -----------------------------------------------------------------------------------


def _by_ffmpeg(file: BinaryIO, name: str, rate: int) -> tuple[int, Blocks]:
    program = shutil.which("ffmpeg")
    if program is None:
        raise NotMine("there is no program ffmpeg")
    # Fed through a pipe, so that nothing in the file can make it open another one or an address.
    words = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "pipe", "-i", "pipe:0"]
    words += ["-vn", "-ac", "1", "-ar", str(rate), "-f", "f32le", "pipe:1"]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin and process.stdout and process.stderr
    feeder = threading.Thread(target=_feed, args=(file, process.stdin), daemon=True)
    complaints: list[bytes] = []
    listener = threading.Thread(target=lambda: complaints.append(process.stderr.read()))  # type: ignore[union-attr]
    feeder.start()
    listener.start()

    def blocks() -> Blocks:
        read = 0
        try:
            while data := process.stdout.read(4 * BLOCK):  # type: ignore[union-attr]
                read += len(data) // 4
                yield np.frombuffer(data, "<f4").astype(np.float32)[:, None]
        finally:
            if process.poll() is None:
                process.stdout.close()  # type: ignore[union-attr]
            process.wait()
            listener.join()
        if process.returncode:
            clue = (complaints[0].decode(errors="replace").strip().splitlines() or [""])[-1]
            raise _damaged(name, read / rate, f"ffmpeg: {clue}")

    return rate, blocks()


def _feed(file: BinaryIO, pipe: Any) -> None:
    with suppress(BrokenPipeError, OSError), pipe:
        shutil.copyfileobj(file, pipe)


# -- errors ----------------------------------------------------------------------------------------


def _missing(library: str, package: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{library} is not installed (pip install {_quoted(package)})"
    clue = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{library} is installed and does not load ({clue[:100]})"


def _quoted(package: str) -> str:
    return f"'{package}'" if "[" in package and os.name != "nt" else package


def _damaged(name: str, seconds: float, error: object) -> DataError:
    clue = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return DataError(f"{name} is damaged after {seconds:.2f} s: {clue[:120]}.")
