"""Raw pictures to pixels: files, bytes, PIL images and arrays, upright and in one mode, resized and normalised."""

# b batch, c channels, h height, w width

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_PIXELS", "center_crop", "open_image", "resize_shortest", "to_pixels"]

MAX_PIXELS = 64_000_000  # Pillow itself warns at 89 and refuses at 179 million; nobody feeds that to a model on purpose


def open_image(source: Any, channels: int = 3) -> Image:
    """Returns an upright RGB (or grey) picture of a path, bytes, file object, PIL image, or (h w), (h w c), (c h w) array.

    Arrays hold 0..255 when they are whole numbers and 0..1 otherwise. Transparency is laid over white. Of an animation
    the first frame is taken. Raises DataError in one sentence for what is no picture, is broken, or is too large.
    """
    from PIL import Image, ImageOps

    mode = "L" if channels == 1 else "RGB"
    if isinstance(source, Image.Image):
        image, name = source, "the picture"
    elif isinstance(source, (np.ndarray, Tensor)):
        image, name = _from_array(source), "the array"
    else:
        image, name = _open_file(source)
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"{name} has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}; scale it down first."
        )
    try:
        image = ImageOps.exif_transpose(image)
        return _to_mode(image, mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{name} is broken: {error}.") from None


def _open_file(source: Any) -> tuple[Image, str]:
    from PIL import Image, UnidentifiedImageError

    name = "the picture"
    if isinstance(source, (str, os.PathLike)):
        name = str(source)
        if not Path(source).is_file():
            raise DataError(f"{name}: no such file.")
    elif isinstance(source, (bytes, bytearray)):
        source = io.BytesIO(source)
    elif not hasattr(source, "read"):
        raise DataError(
            f"A picture is a path, bytes, a file, a PIL image or an array, not {type(source).__name__}."
        )
    try:
        return Image.open(source), name
    except UnidentifiedImageError:
        raise DataError(f"{name} is not a picture that Pillow can read.") from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{name} has more than {MAX_PIXELS:,} pixels; scale it down first."
        ) from None
    except OSError as error:
        raise DataError(f"{name} cannot be opened: {error}.") from None


def _from_array(array: np.ndarray | Tensor) -> Image:
    from PIL import Image

    values = array.detach().cpu().numpy() if isinstance(array, Tensor) else array
    if values.ndim == 3 and values.shape[0] in (1, 3, 4) and values.shape[2] not in (1, 3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if (
        values.ndim not in (2, 3)
        or values.size == 0
        or (values.ndim == 3 and values.shape[2] not in (3, 4))
    ):
        raise DataError(
            f"An array of shape {tuple(array.shape)} is no picture; give (h w), (h w c) or (c h w)."
        )
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    elif values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise DataError("The picture holds NaN or infinite values.")
        if values.min() < 0 or values.max() > 1:
            raise DataError(
                f"A float picture holds 0..1, this one {values.min():.3g}..{values.max():.3g}; divide or convert it."
            )
        values = (values * 255).round().astype(np.uint8)
    elif values.dtype == np.uint16:
        values = (values >> 8).astype(np.uint8)
    elif values.dtype != np.uint8:
        if values.min() < 0 or values.max() > 255:
            raise DataError(
                f"A whole-number picture holds 0..255, this one {values.min()}..{values.max()}."
            )
        values = values.astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(values))


def _to_mode(image: Image, mode: str) -> Image:
    from PIL import Image

    if image.mode in (
        "I;16",
        "I;16B",
        "I;16L",
        "I",
    ):  # convert() would clip 16 bits to white instead of scaling them
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    image.load()
    return image if image.mode == mode else image.convert(mode)


def _filter(name: str) -> Any:
    from PIL.Image import Resampling

    return Resampling[name.upper()]


def resize_shortest(image: Image, size: tuple[int, int], interpolation: str) -> Image:
    """Scales so that the picture just covers (height, width); for a square the shorter side becomes its size."""
    height, width = size
    if image.height * width <= image.width * height:  # the height decides
        target = (max(int(image.width * height / image.height), width), height)
    else:
        target = (width, max(int(image.height * width / image.width), height))
    return image.resize(target, _filter(interpolation))


def center_crop(image: Image, size: tuple[int, int]) -> Image:
    """Cuts (height, width) out of the middle."""
    height, width = size
    top = round((image.height - height) / 2.0)
    left = round((image.width - width) / 2.0)
    return image.crop((left, top, left + width, top + height))


def to_pixels(
    images: Sequence[Any],
    *,
    size: tuple[int, int],
    channels: int,
    resize: str,
    crop: float,
    interpolation: str,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Returns normalised pixels (b c h w) in fp32 of raw pictures."""
    from PIL import Image

    arrays = []
    for source in images:
        image = open_image(source, channels)
        if resize == "pad":  # to a square with the mean colour, as LLaVA 1.5 does
            side = max(image.size)
            colour = tuple(int(255 * m) for m in mean)
            square = Image.new(image.mode, (side, side), colour if channels > 1 else colour[0])
            square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
            image = square.resize((size[1], size[0]), _filter(interpolation))
        elif resize == "squash":
            image = image.resize((size[1], size[0]), _filter(interpolation))
        else:
            scaled = (int(size[0] / crop), int(size[1] / crop))
            image = center_crop(resize_shortest(image, scaled, interpolation), size)
        values = np.asarray(image)
        arrays.append(values[..., None] if values.ndim == 2 else values)
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
    shift = torch.tensor(mean).view(1, -1, 1, 1)
    return pixels.sub_(shift).div_(torch.tensor(std).view(1, -1, 1, 1))
