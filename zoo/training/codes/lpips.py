"""LPIPS: pictures compared by what VGG16 sees in them, as people would."""

# b batch, c channels, h w pixels, d channels of a feature map

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import ConfigError, WeightsError
from zoo.training.codes.schema import LearnedDistanceConfig
from zoo.weights.files import open_weights

__all__ = ["LearnedDistance"]

BLOCKS = (2, 2, 3, 3, 3)  # convolutions between two halvings; what is compared stands at their ends
# where torchvision's list of layers has them: each is followed by a ReLU, each block by a pooling
STARTS = (0, *accumulate(2 * count + 1 for count in BLOCKS[:-1]))
PLACES = [[start + 2 * i for i in range(count)] for start, count in zip(STARTS, BLOCKS)]
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels in [-1, 1]
NAMES = (  # of torchvision's file, of a whole LPIPS; of the weights of channels
    re.compile(r"features\.(?P<layer>\d+)\.(?P<part>weight|bias)"),
    re.compile(r"net\.slice\d\.(?P<layer>\d+)\.(?P<part>weight|bias)"),
    re.compile(r"lin(?P<lin>\d)\.(?:model\.)?[01]\.weight"),
)
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


class LearnedDistance:
    """The weights are no part of what is trained or stored.

    Raises: ConfigError without a folder, WeightsError naming the first tensor that one lacks.
    """

    def __init__(self, config: LearnedDistanceConfig) -> None:
        if not config.folder:
            raise ConfigError(
                "perceptual.folder: name one with torchvision's vgg16 and lpips' vgg.pth."
            )
        self.tensors = _read(Path(config.folder), config.allow_pickle)
        wanted = [f"{n}.{part}" for block in PLACES for n in block for part in ("weight", "bias")]
        wanted += [f"lin{k}" for k in range(len(BLOCKS))]
        for name in wanted:
            if name not in self.tensors:
                what = f"lpips' {name}.model.1.weight" if "lin" in name else f"features.{name}"
                raise WeightsError(
                    f"perceptual.folder: {config.folder} has no {what}; it needs torchvision's "
                    "vgg16 and the `lpips` package's weights/v0.1/vgg.pth (pickles: "
                    "perceptual.allow_pickle=true)."
                )

    def __call__(self, made: Tensor, real: Tensor) -> Tensor:  # b c h w each, in [0, 1]
        """Returns a scalar, the mean over pictures; gradients go to `made` alone."""
        self.tensors = {name: tensor.to(made.device) for name, tensor in self.tensors.items()}
        with torch.no_grad():
            expected = self.features(real)
        parts = [
            ((found - other).square() * self.tensors[f"lin{k}"]).sum(1).mean()
            for k, (found, other) in enumerate(zip(self.features(made), expected, strict=True))
        ]
        return torch.stack(parts).sum()

    def features(self, pixels: Tensor) -> list[Tensor]:  # b d h' w' each, of unit length over d
        """Returns what the five blocks of VGG16 see; grey pictures are seen as colour."""
        x = pixels.float()
        shift, scale = (x.new_tensor(v)[:, None, None] for v in (SHIFT, SCALE))
        x = (2 * x.expand(-1, 3, -1, -1) - 1 - shift) / scale
        found = []
        for index, block in enumerate(PLACES):
            x = F.max_pool2d(x, 2) if index else x
            for place in block:
                weight, bias = (self.tensors[f"{place}.{part}"] for part in ("weight", "bias"))
                x = F.conv2d(x, weight, bias, padding=1).relu()
            found.append(x / (x.square().sum(1, keepdim=True) + 1e-20).sqrt())
        return found


def _read(folder: Path, allow_pickle: bool) -> dict[str, Tensor]:
    """Returns "<layer>.weight", "<layer>.bias" and "lin<k>" of all weights files of a folder."""
    if not folder.is_dir():
        raise WeightsError(f"perceptual.folder: {folder} is no folder.")
    found: dict[str, Tensor] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix not in ENDINGS:
            continue
        for name, lazy in open_weights(file, allow_pickle=allow_pickle).items():
            hits = (pattern.fullmatch(name) for pattern in NAMES)
            hit = next((hit for hit in hits if hit), None)
            if hit is None:
                continue  # a classifier, dropouts, the same weights under another name
            named = hit.groupdict()
            key = f"lin{named['lin']}" if "lin" in named else f"{named['layer']}.{named['part']}"
            found[key] = lazy.read().float()
    return found
