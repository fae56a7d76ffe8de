"""Pictures of any resolution as tiles (LLaVA 1.6, llava-vl.github.io/blog/2024-01-30-llava-next).

A large picture is scaled into the best of some sizes, padded, and cut into tiles of the size that
the tower was made for; a small copy of the whole stands before them. Of what the tower makes of the
tiles, the padding is cut away again and a learned token ends every row.
"""

# t tiles, m tokens of a tile, r c its rows and columns of tokens, R C rows and columns of tiles, d

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

from zoo.errors import ConfigError, DataError
from zoo.nn.linear import fill_normal_

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Tiles", "best_size", "cut", "scaled_into"]

Size = tuple[int, int]  # height, width


class Tiles(nn.Module):
    """Tokens of tiles to tokens of pictures."""

    def __init__(self, sizes: Sequence[Sequence[int]], width: int, std: float) -> None:
        super().__init__()
        self.sizes, self.std = [(size[0], size[1]) for size in sizes], std
        self.newline = nn.Parameter(torch.empty(width))

    def reset_parameters(self) -> None:
        fill_normal_(self.newline, self.std)

    def forward(
        self,
        tokens: Tensor,  # t m d, of each picture the whole first, then its tiles row by row
        grid: Size | None,  # rows and columns of the tokens of a tile
        tile: Size,  # height and width of a tile in pixels
        sizes: Sequence[Size] | None,  # of the pictures, before they were scaled
    ) -> list[Tensor]:
        """Raises ConfigError for an adapter whose tokens have no place, DataError for missing or
        wrong sizes."""
        if grid is None or grid[0] * grid[1] != tokens.shape[1]:
            raise ConfigError("tiles: need an adapter whose tokens are a grid, without others.")
        if sizes is None:
            raise DataError("A model that cuts pictures into tiles needs their sizes.")
        shapes = [self.shape(size, tile) for size in sizes]
        counts = [1 + rows * columns for rows, columns in shapes]
        if sum(counts) != len(tokens):
            raise DataError(f"{len(tokens)} tiles were given, and the sizes ask for {sum(counts)}.")
        pictures = tokens.split(counts)
        return [
            self._one(of, grid, shape, size)
            for of, shape, size in zip(pictures, shapes, sizes, strict=True)
        ]

    def shape(self, size: Size, tile: Size) -> Size:
        """Returns the rows and columns of tiles of a picture of a size."""
        height, width = best_size(size, self.sizes)
        return height // tile[0], width // tile[1]

    def _one(self, tokens: Tensor, grid: Size, shape: Size, size: Size) -> Tensor:
        whole, parts = tokens[0], tokens[1:]
        (rows, columns), (r, c) = shape, grid
        board = rearrange(parts, "(R C) (r c) d -> (R r) (C c) d", R=rows, C=columns, r=r, c=c)
        board = without_padding(board, size)
        line = self.newline.to(board.dtype).expand(board.shape[0], 1, -1)
        return torch.cat([whole, torch.cat([board, line], dim=1).flatten(0, 1)])


def best_size(size: Size, sizes: Sequence[Size]) -> Size:
    """Returns the size that keeps most of a picture's pixels, and of those the one that wastes
    least."""

    def worth(candidate: Size) -> tuple[int, int]:
        scale = min(candidate[1] / size[1], candidate[0] / size[0])
        kept = min(int(size[1] * scale) * int(size[0] * scale), size[0] * size[1])
        return kept, kept - candidate[0] * candidate[1]

    return max(sizes, key=worth)


def scaled_into(size: Size, target: Size) -> Size:
    """Returns the largest (height, width) in a picture's proportions that fits into `target`."""
    across, down = target[1] / size[1], target[0] / size[0]
    if across < down:
        return max(1, min(-int(-size[0] * across // 1), target[0])), target[1]
    return target[0], max(1, min(-int(-size[1] * down // 1), target[1]))


def without_padding(board: Tensor, size: Size) -> Tensor:  # r c d -> r' c' d
    """Returns the tokens of a picture alone: the rim that made its proportions those of the board
    is cut off, as much on one side as on the other."""
    height, width = board.shape[:2]
    if size[1] / size[0] > width / height:
        rim = (height - int(round(size[0] * (width / size[1]), 7))) // 2
        return board[rim : height - rim]
    rim = (width - int(round(size[1] * (height / size[0]), 7))) // 2
    return board[:, rim : width - rim]


def cut(image: Image, sizes: Sequence[Size], tile: Size) -> list[Image]:
    """Returns the whole picture squashed to a tile, and its tiles row by row: scaled by a bicubic
    filter into the best of `sizes`, in the middle of black."""
    from PIL import Image as images

    best = best_size((image.height, image.width), sizes)
    height, width = scaled_into((image.height, image.width), best)
    bicubic = images.Resampling.BICUBIC
    board = images.new(image.mode, (best[1], best[0]))
    place = ((best[1] - width) // 2, (best[0] - height) // 2)
    board.paste(image.resize((width, height), bicubic), place)
    parts = [
        board.crop((left, top, left + tile[1], top + tile[0]))
        for top in range(0, best[0], tile[0])
        for left in range(0, best[1], tile[1])
    ]
    return [image.resize((tile[1], tile[0]), bicubic), *parts]
