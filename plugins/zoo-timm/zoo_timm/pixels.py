"""Raw pictures to pixels, as timm's evaluation transform makes them."""

# b batch, c channels, h height, w width

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor

from zoo.errors import DataError
from zoo.tokenizers.image import (
    as_list,
    center_crop,
    open_image,
    resize_image,
    to_pixels,
)
from zoo_timm.schema import PixelsConfig

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Pixels"]


class Pixels:
    """The tokenizer of a model that takes whole pictures: `preprocess` gives its pixels."""

    def __init__(self, config: PixelsConfig) -> None:
        self.config = config

    def preprocess(self, images: Any, size: tuple[int, int] | None = None) -> Tensor:
        """Returns pixels (b c h w) in fp32 of one raw picture or several.

        `size` (height, width) replaces the configured one. Raises: DataError, see
        zoo.tokenizers.image.open_image.
        """
        config = self.config
        height, width = size or config.image
        target = (height, width)
        pictures, framed = as_list(images)[0], config.resize == "border" or config.crop > 1
        if framed:
            pictures = [self._framed(picture, target) for picture in pictures]
        return to_pixels(
            pictures,
            size=target,
            channels=config.channels,
            resize="squash" if framed else config.resize,
            crop=1.0 if framed else config.crop,
            interpolation=config.interpolation,
            mean=config.mean,
            std=config.std,
        )

    def _framed(self, picture: Any, size: tuple[int, int]) -> Image:
        """Returns the picture scaled to size / crop and centred on what is left of `size`: the mean
        colour around its longest side (timm's ResizeKeepRatio and CenterCropOrPad), or black
        (torchvision's CenterCrop, of a crop beyond 1)."""
        from PIL import Image as images

        config = self.config
        if config.channels not in (1, 3):
            raise DataError(f"No picture has {config.channels} channels; give pixels (b c h w).")
        image = open_image(picture, config.channels)
        scaled = (math.floor(size[0] / config.crop), math.floor(size[1] / config.crop))
        colour: tuple[int, ...] = (0,) * config.channels
        how = config.resize
        if how == "border":
            ratio = max(image.height / scaled[0], image.width / scaled[1])
            scaled = (max(1, round(image.height / ratio)), max(1, round(image.width / ratio)))
            bytes_of = [round(255 * mean) for mean in config.mean]
            colour, how = tuple(bytes_of * (config.channels // len(bytes_of))), "squash"
        image = resize_image(image, scaled, how, config.interpolation)
        width, height = max(size[1], image.width), max(size[0], image.height)
        board = images.new(image.mode, (width, height), colour if len(colour) > 1 else colour[0])
        board.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        return center_crop(board, size)
