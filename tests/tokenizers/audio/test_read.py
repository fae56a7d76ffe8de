"""Sounds of every kind to samples, against soundfile's, PyAV's and torchaudio's own numbers."""

from __future__ import annotations

import builtins
import io
import stat
import sys

import numpy as np
import pytest
import soundfile
import torch

from zoo.errors import DataError
from zoo.tokenizers.audio.read import as_list, audio_blocks, read_audio
from zoo.tokenizers.audio.resample import resampled, resampled_blocks

ENCODED = [
    ("WAV", "FLOAT", 16000),
    ("WAV", "PCM_16", 44100),
    ("FLAC", "PCM_16", 22050),
    ("OGG", "VORBIS", 44100),
    ("OGG", "OPUS", 48000),
    ("MP3", "MPEG_LAYER_III", 44100),
]


def tone(seconds: float = 1.0, rate: int = 16000, channels: int = 1) -> np.ndarray:
    """A chirp with another phase in every channel, (n) or (n c)."""
    time = np.arange(int(seconds * rate)) / rate
    waves = [0.4 * np.sin(2 * np.pi * (200 + 300 * time) * time + c) for c in range(channels)]
    return np.stack(waves, axis=1).squeeze().astype(np.float32)


def written(samples: np.ndarray, rate: int, format: str = "WAV", subtype: str = "FLOAT") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def m4a(samples: np.ndarray, rate: int) -> bytes:
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return buffer.getvalue()


@pytest.fixture
def without(monkeypatch):
    """Makes imports fail as if packages were not installed, or broken."""

    def hide(*names: str, error: type[Exception] = ModuleNotFoundError) -> None:
        real = builtins.__import__

        def wrapped(name, *rest, **more):
            if name.split(".")[0] in names:
                raise error(f"no {name} here")
            return real(name, *rest, **more)

        for name in list(sys.modules):
            if name.split(".")[0] in names:
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(builtins, "__import__", wrapped)

    return hide


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "subtype", "rate"), ENCODED)
def test_files(format, subtype, rate, tmp_path):
    data = written(tone(1.0, rate, 2), rate, format, subtype)
    theirs = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].mean(1)
    expected = resampled(torch.from_numpy(theirs), rate, 16000)
    path = tmp_path / f"sound.{format.lower()}"
    path.write_bytes(data)
    with path.open("rb") as file:
        for source in (path, str(path), data, io.BytesIO(data), file):
            torch.testing.assert_close(read_audio(source), expected, rtol=0, atol=1e-6)
    assert read_audio(data).dtype == torch.float32


def test_the_ending_of_a_name_does_not_matter(tmp_path):
    path = tmp_path / "sound.raw"
    path.write_bytes(written(tone(), 16000))
    assert torch.equal(read_audio(path), torch.from_numpy(tone()))


def test_a_pipe_that_cannot_be_rewound():
    class Pipe(io.RawIOBase):
        def __init__(self, data):
            self.data = io.BytesIO(data)

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.data.readinto(buffer)

    assert torch.equal(read_audio(Pipe(written(tone(), 16000))), torch.from_numpy(tone()))


def test_m4a_by_pyav(tmp_path):
    path = tmp_path / "sound.m4a"
    path.write_bytes(m4a(tone(1.0, 44100), 44100))
    found = read_audio(path)
    assert 0.98 * 16000 < len(found) < 1.1 * 16000  # the encoder's delay stays in
    loudest = torch.from_numpy(tone()).square().mean()
    assert torch.isclose(found.square().mean(), loudest, rtol=0.1)


def test_m4a_by_the_program(tmp_path, without, monkeypatch):
    """A stand-in for ffmpeg that insists on a pipe and answers with what it was told to give."""
    program = tmp_path / "ffmpeg"
    program.write_text(
        f"#!{sys.executable}\n"
        "import struct, sys\n"
        "words = sys.argv\n"
        "assert words[words.index('-i') + 1] == 'pipe:0' and '-nostdin' in words\n"
        "data = sys.stdin.buffer.read()\n"
        "if data.endswith(b'broken'): sys.exit('moov atom not found')\n"
        "rate = int(words[words.index('-ar') + 1])\n"
        "sys.stdout.buffer.write(struct.pack('<4f', len(data), rate, 0.5, -1))\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    without("av")
    assert read_audio(b"no sound" * 9, 8000).tolist() == [72, 8000, 0.5, -1]
    with pytest.raises(DataError, match=r"damaged after 0\.00 s: ffmpeg: moov atom not found"):
        read_audio(b"broken")


def test_what_is_missing_is_named(without, monkeypatch):
    monkeypatch.setenv("PATH", "")
    sound = m4a(tone(0.2, 44100), 44100)
    without("av")
    with pytest.raises(DataError, match=r"PyAV is not installed \(pip install av\).*ffmpeg"):
        read_audio(sound)
    without("soundfile", "av", error=OSError)
    with pytest.raises(DataError, match="soundfile is installed and does not load"):
        read_audio(sound)
    without("soundfile", "av")
    with pytest.raises(DataError, match=r"pip install 'multimodal-zoo\[audio\]'"):
        read_audio(sound)


def test_wrong_torchaudio_is_named(without):
    without("torchaudio", error=OSError)
    read_audio((tone(), 16000))  # needs none
    with pytest.raises(DataError, match=r"44100 Hz needs torchaudio.*pip install torchaudio"):
        read_audio((tone(1.0, 44100), 44100), 15999)


# -- arrays ----------------------------------------------------------------------------------------


def test_arrays():
    wave = tone()
    for source in (wave, torch.from_numpy(wave), (wave, 16000), [torch.from_numpy(wave), 16000.0]):
        assert torch.equal(read_audio(source), torch.from_numpy(wave))
    assert torch.equal(read_audio(wave.astype(np.float64)), torch.from_numpy(wave))
    half = torch.from_numpy(wave).bfloat16()
    assert torch.equal(read_audio(half), half.float())


@pytest.mark.parametrize(
    ("kind", "low", "middle"),
    [(np.int16, -32768, 0), (np.int32, -(2**31), 0), (np.uint8, 0, 128), (np.int8, -128, 0)],
)
def test_whole_numbers_are_scaled_by_their_type(kind, low, middle):
    assert read_audio(np.array([low, middle], kind)).tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("channels", [2, 8])
def test_channels_are_averaged_wherever_they_stand(channels):
    waves = tone(0.1, 16000, channels)
    mean = torch.from_numpy(waves).mean(1)
    for source in (waves, waves.T, written(waves, 16000)):
        torch.testing.assert_close(read_audio(source), mean, rtol=0, atol=1e-7)


def test_one_or_several():
    wave = tone(0.1)
    assert as_list((wave, 16000)) == ([(wave, 16000)], False)
    assert as_list("a.wav") == (["a.wav"], False)
    assert as_list(["a.wav", "b.wav"]) == (["a.wav", "b.wav"], True)
    assert as_list([wave, wave])[1] and not as_list(wave)[1]


# -- rates and blocks ------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [8000, 11025, 22050, 32000, 44100, 48000, 96000])
def test_rates_are_torchaudios_whole_and_in_blocks(old):
    from torchaudio.transforms import Resample

    wave = torch.from_numpy(tone(0.5, old))
    expected = Resample(old, 16000)(wave)
    torch.testing.assert_close(read_audio((wave, old)), expected, rtol=0, atol=1e-6)
    for size in (997, 4410):
        parts = list(resampled_blocks(wave.split(size), old, 16000))
        torch.testing.assert_close(torch.cat(parts), expected, rtol=0, atol=1e-6)
        assert len(parts) > 1


def test_a_rate_without_a_common_divisor_needs_no_gigabytes():
    found = read_audio((tone(1.0, 44101), 44101))
    assert abs(len(found) - 16000) <= 1
    expected = torch.from_numpy(tone())[100:-100]
    torch.testing.assert_close(found[100:15900], expected, rtol=0, atol=2e-2)


def test_blocks_are_the_whole():
    data = written(tone(2.0, 22050), 22050, "FLAC", "PCM_16")
    blocks = list(audio_blocks(data, seconds=0.3))
    assert [len(b) for b in blocks] == [4800] * 6 + [3200]
    assert torch.equal(torch.cat(blocks), read_audio(data))


def test_a_long_file_is_read_as_its_blocks_are_asked_for(tmp_path):
    class Counting(io.BytesIO):
        taken = 0

        def read(self, size=-1):
            data = super().read(size)
            self.taken += len(data)
            return data

        def readinto(self, buffer):
            size = super().readinto(buffer)
            self.taken += size
            return size

    file = Counting(written(np.zeros(16000 * 600, np.int16), 16000, "WAV", "PCM_16"))
    blocks = audio_blocks(file, seconds=10)
    assert len(next(blocks)) == 160000
    assert 0 < file.taken < 1_000_000  # of 19 MB
    assert sum(map(len, blocks)) == 16000 * 590


# -- what is no sound ------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "subtype", "rate"), ENCODED)
def test_a_file_that_ends_early_is_an_error_where_its_header_promised_more(format, subtype, rate):
    noise = np.random.default_rng(0).standard_normal(3 * rate).astype(np.float32) / 10
    data = written(noise, rate, format, subtype)
    cut = data[: len(data) * 2 // 3]
    if format == "OGG":  # promises nothing: what is there is given
        assert 0.5 * 16000 < len(read_audio(cut)) < 2.5 * 16000
    else:
        with pytest.raises(DataError, match=r"is damaged after [1-2]\.\d\d s"):
            read_audio(cut)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "cannot be read as sound"),
        (b"hello" * 100, "finds no wav, flac, ogg or mp3 in it"),
        (np.zeros(0, np.float32), "holds no samples"),
        (written(np.zeros(0, np.float32), 16000), "holds no samples"),
        (np.array([0.0, np.nan], np.float32), "holds NaN or infinite samples"),
        (written(np.array([0.0, np.inf], np.float32), 16000), "holds NaN or infinite samples"),
        (np.zeros((100, 100), np.float32), r"not \(100, 100\)"),
        (np.zeros((1, 2, 3), np.float32), r"not \(1, 2, 3\)"),
        (np.array(["a"]), "Samples are numbers"),
        ((np.zeros(9, np.float32), 0), "A sampling rate is a whole number of Hz"),
        ((np.zeros(9, np.float32), 16000.5), "A sampling rate is a whole number of Hz"),
        ((np.zeros(9, np.float32), float("nan")), "A sampling rate is a whole number of Hz"),
        ((np.zeros(9, np.float32), 10**7 + 1), "A sampling rate is a whole number of Hz"),
        (5, "not int"),
        ("/no/such/file.wav", "no such file"),
        ("nul\0.wav", "no such file"),
        ("/", "is no file"),
    ],
    # the bytes of a sound hold the second at which they were written: no name for a test
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_no_sound(source, message):
    with pytest.raises(DataError, match=message):
        read_audio(source)
