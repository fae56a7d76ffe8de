"""ViT-VQGAN's encoder and decoder: patches and the shared stack."""

# b batch, c channels, h w pixels, y x rows and columns of patches, d width

from __future__ import annotations

from torch import Tensor, nn

from zoo.registry import build
from zoo.tokenizers.visual.codecs.cubes import FromCubes, ToCubes, places
from zoo.tokenizers.visual.codecs.schema import PatchDecoderConfig, PatchEncoderConfig

__all__ = ["PatchDecoder", "PatchEncoder"]


class PatchEncoder(nn.Module):
    """(b c h w) -> (b y x d)."""

    def __init__(self, config: PatchEncoderConfig, channels: int, image: tuple[int, int]) -> None:
        super().__init__()
        self.patches = ToCubes(channels, (1, *config.factor), config.width)
        self.backbone = build(config.backbone, grid=places(*image, config.factor))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patches(pixels[:, :, None])[:, 0]  # b y x d
        return self.backbone(x.flatten(1, 2), grid=tuple(x.shape[1:3])).view_as(x)


class PatchDecoder(nn.Module):
    """(b y x d) -> (b c h w)."""

    def __init__(self, config: PatchDecoderConfig, channels: int, image: tuple[int, int]) -> None:
        super().__init__()
        self.backbone = build(config.backbone, grid=places(*image, config.factor))
        self.patches = FromCubes(channels, (1, *config.factor), config.width, config.pixel_bias)

    @property
    def last(self) -> Tensor:
        """The weight of the last layer, where an adversarial loss is weighed against the rest."""
        return self.patches.map.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.backbone(x.flatten(1, 2), grid=tuple(x.shape[1:3])).view_as(x)
        return self.patches(y[:, None])[:, :, 0]
