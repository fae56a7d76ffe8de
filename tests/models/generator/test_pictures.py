"""Clips on disk: what was written is read back by others."""

import numpy as np
import pytest

from zoo.errors import ConfigError
from zoo.models.generator.pictures import as_picture, save_clip

SHADES = (40, 120, 200)
FRAMES = [as_picture(np.full((32, 48, 3), shade, np.uint8)) for shade in SHADES]


def test_gif(tmp_path):
    from PIL import Image

    with Image.open(save_clip(FRAMES, tmp_path / "a.gif", seconds=0.1, scale=2)) as clip:
        assert (clip.n_frames, clip.size, clip.info["duration"]) == (3, (96, 64), 100)


def test_mp4(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(save_clip(FRAMES, tmp_path / "a.mp4", seconds=0.5))) as clip:
        assert float(clip.streams.video[0].average_rate) == 2
        frames = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 3
    for frame, shade in zip(frames, SHADES, strict=True):
        assert abs(float(frame.mean()) - shade) < 6
    with pytest.raises(ConfigError, match=r"\.gif or \.mp4, not '\.webm'"):
        save_clip(FRAMES, tmp_path / "a.webm")
