"""Pictures and clips in and out: PIL images, grids of codes that a mask covers, GIF and MP4."""

# h w pixels, c channels, r s rows and columns of codes

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import ConfigError, DataError

__all__ = ["as_picture", "mask_codes", "save_clip", "sheet"]


def as_picture(array: np.ndarray) -> Any:  # h w c
    """Returns a PIL image of an array of bytes."""
    from PIL import Image

    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def mask_codes(mask: Any, grid: tuple[int, ...]) -> Tensor:  # -> r s
    """Returns which codes a mask of pixels covers, in whole or in part.

    `mask` is an array or a PIL image; true, or brighter than half, is drawn anew. Raises: DataError
    for one that is no plane.
    """
    plane = np.asarray(mask)
    if plane.ndim == 3:
        plane = plane[..., :3].max(-1)
    if plane.ndim != 2 or 0 in plane.shape:
        raise DataError(f"A mask is a plane of pixels, not an array of shape {plane.shape}.")
    bright = plane if plane.dtype == bool else plane > (127 if plane.max() > 1 else 0.5)
    pixels = torch.from_numpy(np.ascontiguousarray(bright, dtype=np.float32))
    return F.adaptive_max_pool2d(pixels[None, None], grid[-2:])[0, 0] > 0


def sheet(pictures: Sequence[Any], columns: int | None = None, scale: int = 1, gap: int = 2) -> Any:
    """Returns pictures of one size on one sheet, row by row, each pixel `scale` pixels wide."""
    from PIL import Image

    columns = columns or max(1, round(len(pictures) ** 0.5))
    rows = -(-len(pictures) // columns)
    width, height = (side * scale for side in pictures[0].size)
    page = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for index, picture in enumerate(pictures):
        place = (index % columns) * (width + gap), (index // columns) * (height + gap)
        page.paste(picture.convert("RGB").resize((width, height), Image.Resampling.NEAREST), place)
    return page


def save_clip(
    frames: Sequence[Any], path: str | Path, seconds: float = 0.2, scale: int = 1
) -> Path:
    """Writes frames as a GIF, or as MP4 where PyAV is installed, by the ending of the name.

    Raises: ConfigError for another ending, and for MP4 without PyAV.
    """
    from PIL import Image

    path = Path(path)
    large = [
        f.convert("RGB").resize((f.width * scale, f.height * scale), Image.Resampling.NEAREST)
        for f in frames
    ]
    if path.suffix == ".gif":
        milliseconds = round(1000 * seconds)
        large[0].save(path, save_all=True, append_images=large[1:], duration=milliseconds, loop=0)
    elif path.suffix == ".mp4":
        _save_mp4(large, path, seconds)
    else:
        raise ConfigError(f"A clip is written as .gif or .mp4, not {path.suffix or path.name!r}.")
    return path


def _save_mp4(frames: Sequence[Any], path: Path, seconds: float) -> None:
    try:
        import av
    except ImportError:
        raise ConfigError("MP4 needs PyAV: pip install av; or write a .gif.") from None
    with av.open(str(path), "w") as container:
        out = container.add_stream("libx264", rate=max(1, round(1 / seconds)))
        out.width, out.height = frames[0].size
        out.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(out.encode(av.VideoFrame.from_image(frame)))
        container.mux(out.encode())
