"""Visual tokenizers: an encoder, a quantizer, a decoder. DALL-E's dVAE, VQ-GAN, ViT-VQGAN, C-ViViT.

The interface that generators build on:

    codes = model.encode(pixels)        .ids  int64 (b *grid), also of a residual quantizer, whose
                                              last grid axis counts its steps
    pixels = model.decode(codes.ids)    also (b n) for n = prod(grid), with `grid=`
    model.codebook_size                 how many codes there are: ids are 0 .. codebook_size - 1
    model.grid((h, w) or (t, h, w))     the shape of the codes of such a picture or clip
    model.shape(grid)                   the way back: (h, w) or (t, h, w)
    model.video                         whether pixels have a time
    model.preprocess(images)            raw pictures (paths, PIL, arrays) to pixels
    model.pictures(pixels)              pixels to uint8 arrays, (b h w c) or (b t h w c)

Pixels are floats in [0, 1]: pictures (b c h w), video (b c t h w). A video tokenizer also takes
pictures, as clips of one frame. What a network wants to see instead ([-1, 1], …) is its `span`.
`encode` and `decode` are exact functions in evaluation mode; training calls the model itself.
"""

# b batch, c channels, t h w frames and pixels, d channels of vectors, m maps of the decoder

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, DataError
from zoo.models.codes.schema import VisualTokenizerConfig
from zoo.registry import build
from zoo.tokenizers.image import as_list, to_pixels

__all__ = ["Codes", "CodesOutput", "VisualTokenizer"]


@dataclass
class Codes:
    """Whole numbers for pictures or clips."""

    ids: Tensor  # b *grid, int64
    vectors: Tensor  # b *grid d, what the decoder reads
    losses: dict[str, Tensor] = field(default_factory=dict)  # of the quantizer, in training


@dataclass
class CodesOutput:
    """What a training step reads."""

    reconstruction: Tensor  # scalar: the decoder's loss
    pixels: Tensor  # b c [t] h w, the decoder's answer in [0, 1], not clipped
    codes: Codes


class VisualTokenizer(nn.Module):
    """Pixels -> grid of vectors -> codes -> vectors -> pixels.

    However weights are stored, `zoo.load` computes in fp32 unless asked: near a border between two
    codes rounding decides, and VQ-GANs overflow in fp16.
    """

    load_dtype = torch.float32

    def __init__(self, config: VisualTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.video, self.codebook_size = config.video, config.codebook_size
        self.reconstruction = build(config.reconstruction)
        size: dict[str, Any] = {"image": tuple(config.image)}
        self.encoder = build(config.encoder, channels=config.channels, **size)
        self.quantizer = build(
            config.quantizer,
            width=config.encoder.width,
            out=None if config.decoder is None else config.decoder.width,
            subpixels=math.prod(config.encoder.factor) * config.channels,
        )
        self.decoder = None
        if config.decoder is not None:
            maps = config.channels * config.reconstruction.maps
            self.decoder = build(config.decoder, channels=maps, **size)

    def forward(self, pixels: Tensor) -> CodesOutput:  # b c [t] h w
        """Raises DataError for pixels that do not fit, ConfigError without a decoder."""
        pixels = self._clips(pixels)
        codes = self._encode(pixels)
        prediction = self._decoder()(codes.vectors)
        loss = self.reconstruction.loss(prediction, self._seen(pixels))
        return CodesOutput(loss, self._unseen(self.reconstruction.pixels(prediction)), codes)

    def encode(self, pixels: Tensor) -> Codes:  # b c [t] h w
        """Returns the codes of pixels in [0, 1]. Raises DataError for shapes that do not fit."""
        return self._encode(self._clips(pixels))

    def decode(self, ids: Tensor, grid: tuple[int, ...] | None = None) -> Tensor:  # b *grid
        """Returns pixels (b c [t] h w) in [0, 1].

        Args:
            ids: codes; flat ones (b n) need `grid`.
            grid: of one sample, as `self.grid` gives it.
        Raises: DataError for numbers that are no codes, ConfigError without a decoder.
        """
        decoder = self._decoder()
        if grid is not None:
            ids = ids.reshape(len(ids), *grid)
        expected = 1 + len(self.grid(tuple(self.config.image)))
        if ids.ndim != expected:
            raise DataError(
                f"Codes have {expected} axes, a batch and a grid such as "
                f"{self.grid(tuple(self.config.image))}, got {tuple(ids.shape)}; give grid= for "
                "flat ones."
            )
        prediction = decoder(self.quantizer.lookup(ids))
        return self._unseen(self.reconstruction.pixels(prediction)).clamp(0, 1)

    def grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the codes of pixels of `shape`, (h w) or (t h w); raises
        DataError."""
        return self.config.grid(shape)

    def shape(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Returns (h, w) or (t, h, w) of the pixels that codes of this grid decode to."""
        p, r = self.config.encoder.factor
        if not self.video:
            return grid[0] * p, grid[1] * r
        step = self.config.encoder.frames  # type: ignore[attr-defined]
        return 1 + (grid[0] - 1) * step, grid[1] * p, grid[2] * r

    def anneal(self, share: float) -> None:
        """Sets what changes over a training, of which `share` (0 to 1) is done."""
        self.quantizer.anneal(share)

    # -- raw pictures ------------------------------------------------------------------------------

    @property
    def tokenizer(self) -> VisualTokenizer:
        """Itself: data sets ask a model's tokenizer to prepare pictures."""
        return self

    def preprocess(self, images: Any, size: tuple[int, int] | None = None) -> Tensor:
        """Returns pixels (b c h w) in [0, 1] of one raw picture or several; `size` (height, width)
        replaces the configured one."""
        config = self.config
        return to_pixels(
            as_list(images)[0],
            size=size or (config.image[0], config.image[1]),
            channels=config.channels,
            resize=config.resize,
            crop=1.0,
            crop_offset="round",
            interpolation=config.interpolation,
            mean=[0.0] * config.channels,
            std=[1.0] * config.channels,
        )

    @staticmethod
    def pictures(pixels: Tensor) -> np.ndarray:  # b c [t] h w -> b [t] h w c
        """Returns uint8 arrays that PIL and NumPy understand."""
        levels = (pixels.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
        return levels.movedim(1, -1).cpu().numpy()

    def fsdp_units(self) -> list[nn.Module]:
        """Returns what is sharded as a unit."""
        halves = [half for half in (self.encoder, self.decoder) if half is not None]
        layers = [
            layer for half in halves for layer in half.modules() if hasattr(layer, "fsdp_units")
        ]
        return [unit for layer in layers for unit in layer.fsdp_units()] or halves

    # -- the way there and back --------------------------------------------------------------------

    def _encode(self, pixels: Tensor) -> Codes:
        found = self.quantizer(self.encoder(self._seen(pixels)))
        return Codes(found.ids, found.vectors, found.losses)

    def _clips(self, pixels: Tensor) -> Tensor:
        """Returns pixels as the encoder takes them, a picture as a clip of one frame."""
        axes = 5 if self.video else 4
        if self.video and pixels.ndim == 4:
            pixels = pixels[:, :, None]
        if pixels.ndim != axes or pixels.shape[1] != self.config.channels:
            names = "channels, frames, height, width" if self.video else "channels, height, width"
            raise DataError(
                f"Expected pixels (batch, {names}) with {self.config.channels} channels, "
                f"got {tuple(pixels.shape)}."
            )
        self.grid(tuple(pixels.shape[2:]))
        return pixels

    def _seen(self, pixels: Tensor) -> Tensor:
        low, high = self.config.span
        seen = pixels * (high - low) + low
        return seen.to(next(self.encoder.parameters()).dtype)

    def _unseen(self, seen: Tensor) -> Tensor:
        low, high = self.config.span
        return (seen - low) / (high - low)

    def _decoder(self) -> nn.Module:
        if self.decoder is None:
            raise ConfigError(
                "decoder: these weights have an encoder alone, so codes cannot become pixels; "
                "train one (decoder=…, with trainable=['decoder.*']), or use another tokenizer."
            )
        return self.decoder
