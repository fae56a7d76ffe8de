"""Schema of the visual tokenizers. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.errors import ConfigError, DataError
from zoo.models.schema import ModelConfig
from zoo.registry import kind, part, setting
from zoo.tokenizers.visual.codecs.schema import DecoderConfig, EncoderConfig
from zoo.tokenizers.visual.schema import QuantizerConfig, ReconstructionConfig


@kind("model", "visual-codes", builds="zoo.models.codes.model:VisualTokenizer")
@dataclass(kw_only=True)
class VisualTokenizerConfig(ModelConfig):
    """Encoder x quantizer x decoder x reconstruction loss: pictures or video to codes and back."""

    image: tuple[int, int] = setting(
        [256, 256], "height and width that raw pictures are brought to", low=1
    )
    channels: int = setting(3, "3 for colour, 1 for grey", low=1)
    span: tuple[float, float] = setting(
        [-1.0, 1.0], "what the networks see for black and for full brightness"
    )
    resize: Literal["shortest", "squash", "pad"] = setting(
        "shortest", "raw pictures: shortest side to size and crop; both sides; or pad to a square"
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = setting(
        "bicubic", "filter of the resize"
    )
    encoder: EncoderConfig = part("encoder", {"kind": "vit"}, "pixels to a grid of vectors")
    quantizer: QuantizerConfig = part("quantizer", {"kind": "vq"}, "vectors to codes")
    decoder: DecoderConfig | None = part(
        "decoder", {"kind": "vit"}, "codes to pixels; null where only the encoder is public"
    )
    reconstruction: ReconstructionConfig = part(
        "reconstruction", {"kind": "l2"}, "what the decoder predicts and how it is measured"
    )

    @property
    def video(self) -> bool:
        """Whether the grid has a time."""
        return self.encoder.video

    @property
    def codebook_size(self) -> int:
        """How many codes there are: what a generator's vocabulary is."""
        return self.quantizer.codes

    def grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the codes of pixels of `shape`: (h w) to (rows columns); in a video
        tokenizer (h w) or (t h w) to (times rows columns). A residual quantizer adds its steps.

        Raises: DataError for sizes that do not divide.
        """
        *frames, height, width = shape
        for side, size, step in zip(
            ("height", "width"), (height, width), self.encoder.factor, strict=True
        ):
            if size < 1 or size % step:
                raise DataError(f"A {side} of {size} pixels is no multiple of {step}.")
        rows, columns = (
            size // step for size, step in zip((height, width), self.encoder.factor, strict=True)
        )
        last = (self.quantizer.depth,) * (self.quantizer.depth > 1)
        if not self.video:
            if frames:
                raise DataError("This tokenizer takes pictures (h w), not video (t h w).")
            return (rows, columns, *last)
        return (self.times(frames[0] if frames else 1), rows, columns, *last)

    def times(self, frames: int) -> int:
        """Returns the times of the grid that so many frames of a video give; raises DataError."""
        step = self.encoder.frames  # type: ignore[attr-defined]
        if frames < 1 or (frames - 1) % step:
            raise DataError(
                f"A clip has 1 frame, and then {step} for each further time of the grid; {frames} "
                "frames are none of these."
            )
        return 1 + (frames - 1) // step

    def inputs(self) -> str:
        """What the model takes, for people."""
        height, width = self.image
        size = f"{self.channels} {height} {width}"
        what = f"video (b {size[0]} t {height} {width})" if self.video else f"pictures (b {size})"
        grid = " x ".join(map(str, self.grid((height, width))))
        return f"{what} in [0, 1]: {grid} codes of {self.codebook_size}"

    def check(self) -> None:
        low, high = self.span
        if low >= high:
            raise ConfigError(f"span: black is below full brightness, got {low} and {high}.")
        if self.reconstruction.zoo_kind == "logit-laplace" and not 0 < low < high < 1:
            raise ConfigError(
                "span: a logit-laplace reconstruction needs pixels inside (0, 1), as in [0.1, 0.9]."
            )
        if self.decoder is not None:
            for name in ("video", "factor"):
                ours, theirs = getattr(self.encoder, name), getattr(self.decoder, name)
                if ours != theirs:
                    raise ConfigError(
                        f"decoder: its {name} {theirs} must be the encoder's, {ours}."
                    )
