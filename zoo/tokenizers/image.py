"""Raw pictures to pixels: files, bytes, PIL images and arrays, upright, resized and normalised.

The numbers are those of timm's evaluation transform and of transformers' image processors (Pillow
backends), of which a model's weights expect one or the other. Files are hostile until proven
otherwise: sizes are read from the header before anything is decoded, and whatever Pillow makes of a
broken file becomes one sentence.
"""

# b batch, c channels, h height, w width

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_PIXELS", "as_list", "center_crop", "open_image", "resize_image", "to_pixels"]

# Pillow itself warns at 89 and refuses at 179 million; nobody feeds that to a model on purpose.
MAX_PIXELS = 64_000_000

# What is read. Pillow knows more, among them PostScript, which it hands to an outside interpreter.
FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "TGA",
    "TIFF", "WEBP",
)  # fmt: skip


def as_list(images: Any) -> tuple[list[Any], bool]:
    """Returns (pictures, whether several were given): a list or a stack (b ...) is several."""
    if isinstance(images, Sequence) and not isinstance(images, (str, bytes, bytearray)):
        return list(images), True
    if getattr(images, "ndim", 0) == 4:
        return list(images), True
    return [images], False


# -- opening ---------------------------------------------------------------------------------------


def open_image(source: Any, channels: int = 3, still: bool = False) -> Image:
    """Returns an upright RGB (or, for one channel, grey) picture.

    `source` is a path, bytes, a file object, a PIL image, or an array (h w), (h w c) or (c h w) of
    1, 3 or 4 channels, which holds 0..1 when it is of floats, 0..65535 when of uint16, and 0..255
    otherwise. Transparency is laid over white, EXIF orientation is applied, of an animation the
    first frame is taken (`still` refuses it), and of 16 bits the upper 8.

    Raises: DataError in one sentence for what is no picture, is broken, or exceeds MAX_PIXELS.
    """
    from PIL.Image import Image as PILImage

    if isinstance(source, PILImage):
        _check_size(source.size, "The picture")
        with _one_sentence("The picture"):
            _check_frames(source, "The picture", still)
            return _upright(source, channels)
    if isinstance(source, (np.ndarray, Tensor)):
        return _upright(_from_array(source), channels)
    file, name = _as_file(source)
    with _one_sentence(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own limit is above ours; odd EXIF is no news
        image = _open(file)
        with image:
            _check_size(image.size, name)
            _check_frames(image, name, still)
            return _upright(image, channels)


def _as_file(source: Any) -> tuple[Any, str]:
    """Returns (what Pillow opens, what errors call it)."""
    if isinstance(source, (bytes, bytearray)):
        return io.BytesIO(source), "The picture"
    if hasattr(source, "read"):
        return source, str(getattr(source, "name", "The picture"))
    if not isinstance(source, (str, os.PathLike)):
        raise DataError(
            "A picture is a path, bytes, a file, a PIL image or an array, "
            f"not {type(source).__name__}."
        )
    name = os.fsdecode(source)
    path = Path(name)
    if "\0" in name or not path.exists():
        raise DataError(f"{name}: no such file.")
    if path.is_dir():
        raise DataError(f"{name} is a folder, not a picture.")
    return path, name


def _open(file: Any) -> Image:
    from PIL import Image

    return Image.open(file, formats=_formats())


@cache
def _formats() -> list[str]:
    """Returns those of FORMATS that this Pillow was built with."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


@contextmanager
def _one_sentence(name: str) -> Iterator[None]:
    """Turns whatever Pillow raises into DataError; its decoders raise nearly every type."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{name} is not a picture that can be read ({_known()}).") from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{name} has more than {MAX_PIXELS:,} pixels; scale it down first."
        ) from None
    except PermissionError:
        raise DataError(f"{name} may not be read by this user.") from None
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(f"{name} is broken: {reason[:200]}.") from None


def _known() -> str:
    return ", ".join(_formats())


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if not width or not height:
        raise DataError(f"{name} is {width} x {height} pixels, so there is nothing in it.")
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{name} has {width} x {height} pixels, more than {MAX_PIXELS:,}; scale it down first."
        )


def _check_frames(image: Image, name: str, still: bool) -> None:
    if still and image.format != "MPO" and getattr(image, "is_animated", False):
        frames = getattr(image, "n_frames", 0)
        raise DataError(f"{name} is animated ({frames} frames); give one of them as a picture.")


def _from_array(array: np.ndarray | Tensor) -> Image:
    from PIL import Image

    if isinstance(array, Tensor):
        array = array.detach().cpu()
        values = (array.float() if array.is_floating_point() else array).numpy()  # numpy lacks bf16
    else:
        values = array
    if values.ndim == 3 and values.shape[2] not in (1, 3, 4) and values.shape[0] in (1, 3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    shaped = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))
    if not shaped or values.size == 0:
        raise DataError(
            f"An array of shape {tuple(array.shape)} is no picture; give (h w), (h w c) or (c h w)."
        )
    if values.dtype.kind not in "buif":
        raise DataError(f"An array of {values.dtype} is no picture; give uint8 or floats in 0..1.")
    _check_size((values.shape[1], values.shape[0]), "The array")
    return Image.fromarray(np.ascontiguousarray(_to_bytes(values)))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Returns values as uint8; their type, never what they hold, says how."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise DataError("The picture holds NaN or infinite values.")
        if values.min() < 0 or values.max() > 1:
            raise DataError(
                f"A float picture holds 0..1, this one {values.min():.3g}..{values.max():.3g}; "
                "divide by 255 or give uint8."
            )
        return (values * 255).round().astype(np.uint8)
    if values.min() < 0 or values.max() > 255:
        raise DataError(
            f"A whole-number picture holds 0..255, this one {values.min()}..{values.max()}; "
            "scale it or give uint16."
        )
    return values.astype(np.uint8)


def _upright(image: Image, channels: int) -> Image:
    from PIL import Image, ImageOps

    mode = "L" if channels == 1 else "RGB"
    image = ImageOps.exif_transpose(image)
    image.load()
    if image.mode.startswith("I;16"):  # convert() would clip 16 bits to white instead of scaling
        image = Image.fromarray(_to_bytes(np.asarray(image).astype(np.uint16)))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(_to_bytes(np.asarray(image)))
    if (
        image.mode in ("RGBA", "LA", "PA", "RGBa", "La")
        or image.info.get("transparency") is not None
    ):
        image = image.convert("LA") if image.mode == "La" else image
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == mode else image.convert(mode)


# -- resizing --------------------------------------------------------------------------------------


def resize_image(image: Image, size: tuple[int, int], how: str, interpolation: str) -> Image:
    """Returns the picture scaled to `size` (height, width).

    `how` is shortest (it just covers `size`, in proportion) or squash (it is `size`).
    """
    from PIL.Image import Resampling

    target = size if how == "squash" else covering_size((image.height, image.width), size)
    if math.prod(target) > MAX_PIXELS:
        raise DataError(
            f"A picture of {image.width} x {image.height} is too long and thin: scaled, it would "
            f"have {math.prod(target):,} pixels; crop it first."
        )
    if target == (image.height, image.width):
        return image
    return image.resize((target[1], target[0]), Resampling[interpolation.upper()])


def covering_size(image: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Returns the (height, width) that `image` scales to when it shall just cover `size`.

    For a square the longer side is rounded down (torchvision, transformers), otherwise both are
    rounded (timm).
    """
    height, width = image
    if size[0] == size[1]:
        long = int(size[0] * max(image) / min(image))
        return (size[0], long) if height <= width else (long, size[0])
    ratio = min(height / size[0], width / size[1])
    return round(height / ratio), round(width / ratio)


def pad_to_square(image: Image, mean: Sequence[float]) -> Image:
    """Returns the picture in the middle of a square of the mean colour, as LLaVA 1.5 does."""
    from PIL import Image

    side = max(image.size)
    if side * side > MAX_PIXELS:
        raise DataError(
            f"A picture of {image.width} x {image.height} is too long and thin: as a square, it "
            f"would have {side * side:,} pixels; crop it first."
        )
    colour = tuple(int(255 * m) for m in mean) * (len(image.getbands()) // len(mean))
    square = Image.new(image.mode, (side, side), colour if len(colour) > 1 else colour[0])
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def center_crop(image: Image, size: tuple[int, int], offset: str = "round") -> Image:
    """Cuts (height, width) out of the middle; `offset` says where an odd rest goes."""
    height, width = size
    top, left = (image.height - height) / 2, (image.width - width) / 2
    place = (
        math.floor if offset == "floor" else round
    )  # Python rounds halves to even, as torchvision does
    box = (place(left), place(top), place(left) + width, place(top) + height)
    return image if box == (0, 0, *image.size) else image.crop(box)


def to_pixels(
    images: Sequence[Any],
    *,
    size: tuple[int, int],
    channels: int = 3,
    resize: str = "shortest",
    crop: float = 1.0,
    crop_offset: str = "round",
    interpolation: str = "bicubic",
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.5, 0.5, 0.5),
) -> Tensor:
    """Returns normalised pixels (b c h w) in fp32 of raw pictures.

    The keys are those of `PatchTokenizerConfig`. Raises: DataError, see `open_image`.
    """
    if channels not in (1, 3):
        raise DataError(
            f"This model takes {channels} channels, which no picture has; give it pixels (b c h w)."
        )
    if not images:
        raise DataError("There is no picture in the list.")
    scaled = (math.floor(size[0] / crop), math.floor(size[1] / crop))
    arrays = []
    for source in images:
        image = open_image(source, channels)
        if resize == "pad":
            image = pad_to_square(image, mean)
        how = "shortest" if resize == "shortest" else "squash"
        image = center_crop(resize_image(image, scaled, how, interpolation), size, crop_offset)
        arrays.append(np.asarray(image).reshape(*size, channels))
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float().div_(255)
    shift, scale = (torch.tensor(v, dtype=torch.float32).view(1, -1, 1, 1) for v in (mean, std))
    return pixels.sub_(shift).div_(scale)
