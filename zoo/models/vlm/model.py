"""Vision-language models: pictures as words of a language model."""

# b rows, n given tokens, k expanded places, t tiles of all pictures, c channels, h w pixels,
# i features of the vision tower, m tokens of a picture, d width of the language model, v vocabulary

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.models.vlm.expand import Expanded, expand
from zoo.models.vlm.schema import VisionLanguageConfig
from zoo.models.vlm.tiles import Tiles
from zoo.models.vlm.verbs import VisionLanguageVerbs
from zoo.nn.attention import Record
from zoo.registry import build

__all__ = ["VisionLanguageModel", "VisionLanguageOutput"]


@dataclass
class VisionLanguageOutput:
    """What a vision-language model gives: one place for every word and every patch."""

    logits: Tensor  # b k v
    hidden: Tensor  # b k d
    mask: Tensor  # b k bool, real places
    source: Tensor  # b k, index in the given tokens (row * n + column); -1 where there is nothing
    picture: Tensor  # b k bool, places of pictures


class VisionLanguageModel(nn.Module, VisionLanguageVerbs):
    """A vision tower, an adapter, a language model."""

    def __init__(self, config: VisionLanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = build(config.vision)
        if not hasattr(self.vision, "patch_tokens"):
            raise ConfigError(f"vision: {config.vision.zoo_kind!r} models see no pictures.")
        self.text = build(config.text)
        width, std = config.text.backbone.width, config.text.backbone.init_std
        self.adapter = build(
            config.adapter, inputs=self.vision.patch_width(config.layer), width=width
        )
        if config.tiles:
            self.tiles = Tiles(config.tiles, width, std)

    def forward(
        self,
        tokens: Tensor,  # b n, one `image_token` for each picture
        pixels: Tensor | None = None,  # t c h w, the pictures in the order of their marks
        mask: Tensor | None = None,  # b n, 1 for real tokens
        *,
        sizes: Sequence[tuple[int, int]] | None = None,  # height, width of each picture, for tiles
        pictures: Sequence[Tensor] | None = None,  # m d each, in place of pixels: seen before
        record: Record | None = None,
        pack: int | None = None,  # put rows together into rows of up to so many places
    ) -> VisionLanguageOutput:
        """Raises DataError when there are not as many pictures as marks."""
        if pictures is None:
            pictures = [] if pixels is None else self.see(pixels, sizes)
        x = self.join(tokens, pictures, mask, pack)
        out = self.text(None, x.rules(), embedded=x.embedded, record=record)
        return VisionLanguageOutput(out.logits, out.hidden, x.mask, x.source, x.picture)

    def see(self, pixels: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> list[Tensor]:
        """Returns the tokens (m d) of each picture: as many as the tower and the adapter make."""
        config = self.config
        grid = self.vision.patch_grid(*pixels.shape[2:])
        prefix = {"prefix": True} if config.class_token else {}
        features = self.vision.patch_tokens(pixels, config.layer, **prefix)  # t n i
        tokens = self.adapter(features, grid)  # t m d
        if not config.tiles:
            return list(tokens)
        return self.tiles(tokens, self.adapter.grid(grid), pixels.shape[2:], sizes)

    def join(
        self,
        tokens: Tensor,
        pictures: Sequence[Tensor],
        mask: Tensor | None = None,
        pack: int | None = None,
    ) -> Expanded:
        """Returns the rows that the language model reads: words embedded, pictures between them."""
        marks = tokens == self.config.image_token
        embedded = self.text.embedding(tokens.masked_fill(marks, 0))
        return expand(tokens, embedded, marks, pictures, mask, pack)

    def fsdp_units(self) -> list[nn.Module]:
        """Returns what is sharded as a unit."""
        return [*self.vision.fsdp_units(), *self.text.fsdp_units()]
