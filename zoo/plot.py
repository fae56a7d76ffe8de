"""Pictures of what models see and do, as PIL images: small helpers, no plotting library.

picture = zoo.plot.attention(model, "cat.jpg")      # where the model looks
zoo.plot.save(picture, "cat-attention.png")
"""

# h w pixels, r c rows and columns of patches, k classes

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "attention",
    "heat",
    "matrix",
    "overlay",
    "save",
    "seen",
    "sheet",
    "speech",
    "table",
    "words",
]

# The colours of matplotlib's inferno at eighths: equal steps look equally large, in grey and to the
# colour-blind too.
_RAMP = np.array(
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    dtype=np.float64,
)
_PAPER, _INK, _FAINT = (255, 255, 255), (32, 33, 36), (154, 160, 166)


def attention(
    model: Any, image: Any, head: int | None = None, size: int = 224, strength: float = 0.75
) -> Image:
    """Returns the picture as the model saw it, under the attention of its last block.

    Args:
        model: a loaded vision model.
        image: one raw picture: path, bytes, PIL image or array.
        head: one head of the attention; None is the mean of all.
        size: pixels of the longer side of the result.
        strength: 0 shows the picture alone, 1 only the attention where it is strongest.
    Raises: ConfigError when the model has no attention to show or no such head; DataError.
    """
    if not hasattr(model, "attention_maps"):
        kind = getattr(getattr(model, "config", None), "zoo_kind", type(model).__name__)
        raise ConfigError(f"A {kind} model has no attention maps over a picture.")
    maps = np.asarray(model.attention_maps(image), dtype=np.float64)  # heads r c
    if head is not None and not 0 <= head < len(maps):
        raise ConfigError(f"head: the model has heads 0 to {len(maps) - 1}, got {head}.")
    weights = maps.mean(0) if head is None else maps[head]
    low, high = weights.min(), weights.max()
    shares = (weights - low) / max(high - low, 1e-12)  # of the strongest patch
    return overlay(seen(model, image).convert("RGB"), shares, size, strength)


def overlay(picture: Image, shares: Any, size: int = 224, strength: float = 0.75) -> Image:
    """Returns a picture under a map (r c) of numbers from 0 to 1: where it is 1, the map's colour
    covers `strength` of the picture, where it is 0 nothing."""
    picture, shares = _fit(picture, size), np.asarray(shares, dtype=np.float64)
    mask = np.asarray(_resized(shares, picture.size), dtype=np.float64).clip(0, 1)
    colours = _coloured(mask)
    blend = (strength * mask)[..., None]
    mixed = np.asarray(picture, dtype=np.float64) * (1 - blend) + colours * blend
    return _image(mixed)


def seen(model: Any, image: Any) -> Image:
    """Returns what reaches the model of a raw picture: resized, cropped, its colours put back."""
    config = model.tokenizer.config
    pixels = np.asarray(model.tokenizer.preprocess([image])[0], dtype=np.float64)  # c h w
    mean, std = (np.asarray(v, dtype=np.float64)[:, None, None] for v in (config.mean, config.std))
    levels = ((pixels * std + mean) * 255).transpose(1, 2, 0)
    return _image(levels[..., 0] if levels.shape[2] == 1 else levels)


def heat(values: Any, size: tuple[int, int] | None = None, smooth: bool = False) -> Image:
    """Returns a table of numbers (r c) as colours, dark for the lowest; row 0 is at the top.

    `size` is (width, height) in pixels; None draws one pixel for each number.
    Raises: DataError for anything but a table of finite numbers.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise DataError(f"heat takes a table of finite numbers, got the shape {table.shape}.")
    shares = (table - table.min()) / max(np.ptp(table), 1e-12)
    if size is None:
        return _image(_coloured(shares))
    return _image(_coloured(np.asarray(_resized(shares, size, smooth)).clip(0, 1)))


def matrix(counts: Any, labels: Sequence[str], cell: int = 34) -> Image:
    """Returns a confusion matrix (k k; rows are what it was, columns what it was taken for)."""
    from PIL import Image, ImageDraw

    table = np.asarray(counts)
    if table.shape != (len(labels), len(labels)):
        raise DataError(f"matrix takes a row and a column per label, got the shape {table.shape}.")
    font, small = _font(cell * 0.4), _font(cell * 0.36)
    margin = int(max(small.getlength(str(label)) for label in labels) + cell * 0.5)
    side = margin + cell * len(labels)
    image = Image.new("RGB", (side + cell // 2, side + cell // 2), _PAPER)
    draw = ImageDraw.Draw(image)
    largest = max(int(table.max()), 1)
    for i, label in enumerate(labels):
        middle = margin + cell * i + cell // 2
        draw.text((margin - cell // 4, middle), str(label), _INK, small, anchor="rm")
        draw.text((middle, margin - cell // 4), str(label), _INK, small, anchor="mb")
        for j in range(len(labels)):
            x, y, count = margin + cell * j, margin + cell * i, int(table[i, j])
            shade = _shade(count / largest, right=i == j)
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), shade)
            if count:
                ink = _PAPER if sum(shade) < 380 else _INK
                place = (x + cell // 2 - 1, y + cell // 2 - 1)
                draw.text(place, str(count), ink, font, anchor="mm")
    return image


def sheet(
    pictures: Sequence[Image], captions: Sequence[str] = (), columns: int = 6, size: int = 112
) -> Image:
    """Returns pictures side by side in rows, each with a line of text below it."""
    from PIL import Image, ImageDraw

    if not pictures:
        raise DataError("sheet needs at least one picture.")
    columns, gap = min(columns, len(pictures)), size // 10
    line = size // 5 if captions else 0
    rows = -(-len(pictures) // columns)
    wide, high = columns * (size + gap) + gap, rows * (size + line + gap) + gap
    page = Image.new("RGB", (wide, high), _PAPER)
    draw, font = ImageDraw.Draw(page), _font(size * 0.12)
    for index, picture in enumerate(pictures):
        x = gap + (index % columns) * (size + gap)
        y = gap + (index // columns) * (size + line + gap)
        page.paste(_fit(picture.convert("RGB"), size), (x, y))
        if index < len(captions):
            place = (x + size // 2, y + size + line // 2)
            draw.text(place, captions[index], _INK, font, anchor="mm")
    return page


def speech(
    wave: Any, rate: int, features: Any, words: Sequence[Any] = (), width: int = 1040
) -> Image:
    """Returns a waveform (n) over its features (t m, low ones at the bottom) and its words, each
    with `text`, `start` and `stop` in seconds, where they were heard.

    Raises: DataError for a sound without samples.
    """
    from PIL import Image, ImageDraw

    samples = np.asarray(wave, dtype=np.float64)
    if samples.ndim != 1 or not len(samples):
        raise DataError(f"speech takes one row of samples, got the shape {samples.shape}.")
    seconds, gap = len(samples) / rate, 12
    high, low, line = 90, 150, 30  # pixels of the waveform, the features, the words
    page = Image.new("RGB", (width, high + low + 2 * line + 2 * gap), _PAPER)
    draw, font = ImageDraw.Draw(page), _font(15)
    edges = np.linspace(0, len(samples), width + 1).astype(int)
    loudest = max(float(np.abs(samples).max()), 1e-9)
    for x, (first, last) in enumerate(pairwise(edges)):
        part = samples[first : max(last, first + 1)] / loudest
        top, bottom = (high / 2 * (1 - part.max()), high / 2 * (1 - part.min()))
        draw.line((x, top, x, max(bottom, top + 1)), (26, 95, 180))
    top = high + gap
    page.paste(heat(np.asarray(features).T[::-1], (width, low), smooth=True), (0, top))
    foot = top + low + gap
    for word in words:
        left, right = (round(t / seconds * width) for t in (word.start, word.stop))
        draw.rectangle((left, foot, max(right - 2, left + 2), foot + line - 6), (214, 228, 246))
        draw.line((left, 0, left, foot + line - 6), (200, 40, 40))
        place = (left + 4, foot + (line - 6) // 2)
        draw.text(place, word.text, _INK, font, anchor="lm")
    step = 0.5 if seconds <= 6 else 5.0 if seconds <= 60 else 60.0
    for tick in np.arange(0, seconds, step):
        x = round(tick / seconds * width)
        draw.text((x + 2, page.height - 12), f"{tick:g} s", _FAINT, _font(12), anchor="lm")
    return page


def table(weights: Any, rows: Sequence[str], columns: Sequence[str], cell: int = 24) -> Image:
    """Returns shares (r c) of 0 to 1 as a grid of colours, each row and column with its words:
    attention from the tokens of `rows` to those of `columns`."""
    from PIL import Image, ImageDraw

    shares = np.asarray(weights, dtype=np.float64)
    if shares.shape != (len(rows), len(columns)):
        raise DataError(f"table takes a name per row and per column, got {shares.shape}.")
    font = _font(cell * 0.55)
    left, top = (
        int(max(font.getlength(_visible(word)) for word in names)) + cell // 2
        for names in (rows, columns)
    )
    image = Image.new("RGB", (left + cell * len(columns), top + cell * len(rows)), _PAPER)
    draw = ImageDraw.Draw(image)
    for i, word in enumerate(rows):
        place = (left - cell // 4, top + cell * i + cell // 2)
        draw.text(place, _visible(word), _INK, font, anchor="rm")
    for j, word in enumerate(columns):  # upright, to be read from below
        strip = Image.new("RGB", (top, cell), _PAPER)
        place = (cell // 4, cell // 2)
        ImageDraw.Draw(strip).text(place, _visible(word), _INK, font, anchor="lm")
        image.paste(strip.rotate(90, expand=True), (left + cell * j, 0))
    colours = _coloured(shares / max(shares.max(), 1e-12)).round().astype(int)
    for i, j in np.ndindex(shares.shape):
        x, y = left + cell * j, top + cell * i
        draw.rectangle((x, y, x + cell - 2, y + cell - 2), tuple(colours[i, j].tolist()))
    return image


def words(
    pieces: Sequence[tuple[str, float]], high: float | None = None, width: int = 760, size: int = 15
) -> Image:
    """Returns a text whose pieces stand on colours: white for 0, red for `high` (the largest) and
    more. Line breaks in the pieces break lines, and so does the width in pixels."""
    from PIL import Image, ImageDraw

    if not pieces:
        raise DataError("words needs at least one piece.")
    font, line = _font(size), round(size * 1.7)
    high = max((value for _, value in pieces), default=0.0) if high is None else high
    advance = font.getlength("n")
    boxes: list[tuple[float, int, float, str, float]] = []  # x, line, width, words, value
    x, y = 8.0, 0
    for piece, value in pieces:
        for part in piece.replace("\t", "    ").splitlines(keepends=True):
            shown = part.rstrip("\r\n")
            wide = max(font.getlength(shown.replace(" ", "n")), advance / 2)
            if x + wide > width - 8 and x > 8:
                x, y = 8.0, y + 1
            boxes.append((x, y, wide, shown, value))
            x += wide
            if shown != part:
                x, y = 8.0, y + 1
    last = max(row for _, row, *_ in boxes)
    image = Image.new("RGB", (width, line * (last + 1) + 12), _PAPER)
    draw = ImageDraw.Draw(image)
    for x, row, wide, shown, value in boxes:
        share = min(max(value / max(high, 1e-12), 0.0), 1.0)
        shade = tuple(round(255 + (c - 255) * share * 0.85) for c in (214, 50, 40))
        top = 6 + line * row
        draw.rectangle((x, top, x + wide - 1, top + line - 3), shade)
        draw.text((x + (wide - font.getlength(shown)) / 2, top + 2), shown, _INK, font)
    return image


def save(image: Image, path: str | Path) -> Path:
    """Writes a picture in the format that the file's name says; makes its folder when it is new."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        image.save(path)
    except ValueError as error:  # an unknown extension
        raise DataError(f"{path}: {error}; use .png.") from None
    return path


# -- drawing ---------------------------------------------------------------------------------------


def _image(levels: np.ndarray) -> Image:  # h w [c] of 0..255
    from PIL import Image

    return Image.fromarray(np.asarray(levels).round().clip(0, 255).astype(np.uint8))


def _coloured(shares: np.ndarray) -> np.ndarray:  # h w of 0..1 -> h w 3 of 0..255
    places = np.linspace(0, 1, len(_RAMP))
    return np.stack([np.interp(shares, places, _RAMP[:, c]) for c in range(3)], axis=-1)


def _resized(shares: np.ndarray, size: tuple[int, int], smooth: bool = True) -> Image:
    from PIL import Image

    way = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return Image.fromarray(shares.astype(np.float32)).resize(size, way)


def _fit(image: Image, size: int) -> Image:
    """Returns a picture whose longer side has `size` pixels; small ones keep visible pixels."""
    from PIL import Image

    factor = size / max(image.size)
    way = Image.Resampling.NEAREST if factor >= 2 else Image.Resampling.LANCZOS
    return image.resize([max(1, round(side * factor)) for side in image.size], way)


def _shade(share: float, right: bool) -> tuple[int, int, int]:
    """Returns blue for what is right and red for what is wrong; even a single mistake is seen."""
    if not share:
        return (244, 245, 247)
    full = (26, 95, 180) if right else (200, 40, 40)
    depth = 0.15 + 0.85 * share if right else 0.35 + 0.65 * share
    return tuple(round(255 + (c - 255) * depth) for c in full)  # type: ignore[return-value]


def _visible(word: str) -> str:
    """Returns a token as one line: its line breaks and leading blanks as signs."""
    line = word.replace("\n", "\\n").replace("\t", "\\t")  # no font has signs for them
    blanks = len(line) - len(line.lstrip(" "))
    return "\u00b7" * min(blanks, 3) + line.strip(" ")[:16]


def _font(size: float) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
