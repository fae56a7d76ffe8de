"""Pictures into a sequence: every mark makes room for the tokens of its picture."""

# b rows, n given tokens, T all real given tokens, N all expanded ones, k places of a row, d width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import DataError
from zoo.nn.mask import Mask

__all__ = ["Expanded", "expand"]


@dataclass
class Expanded:
    """Rows of embedded tokens, and where each place comes from."""

    embedded: Tensor  # b k d, zeros where there is nothing
    mask: Tensor  # b k bool, real places
    source: Tensor  # b k, index of the given token (row * n + column); -1 where there is nothing
    picture: Tensor  # b k bool, places of a picture; their source is its mark
    segments: Tensor | None = None  # b k, which sample of a packed row a place belongs to

    def rules(self) -> Mask | None:
        """Returns the mask that the language model needs, None when every row is full and whole."""
        if self.segments is not None:
            return Mask(padding=self.mask, segments=self.segments)
        return None if bool(self.mask.all()) else Mask(padding=self.mask)


def expand(
    tokens: Tensor,  # b n
    embedded: Tensor,  # b n d, what stands at marks does not matter
    marks: Tensor,  # b n bool, where pictures stand
    pictures: Sequence[Tensor],  # m d of each picture, in the order of the marks
    mask: Tensor | None = None,  # b n, 1 for real tokens
    pack: int | None = None,
) -> Expanded:
    """Returns the rows with every mark replaced by its picture's tokens.

    Rows end up of different lengths; they are filled on the side on which `mask` is (right without
    one). With `pack`, rows are put together into rows of up to so many places, in which no sample
    sees another; places of `source` stay what they were.
    Raises: DataError when there are not as many pictures as marks.
    """
    b, n = tokens.shape
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
    marks = marks & real
    count = int(marks.sum())
    if count != len(pictures):
        raise DataError(_miscount(count, len(pictures)))
    index = real.flatten().nonzero()[:, 0]  # T
    is_mark = marks.flatten()[index]
    repeats = torch.ones_like(index)
    repeats[is_mark] = torch.tensor(
        [len(p) for p in pictures], device=index.device, dtype=torch.long
    )
    source = index.repeat_interleave(repeats)  # N
    picture = is_mark.repeat_interleave(repeats)
    values = embedded.flatten(0, 1)[source]  # N d
    if pictures:
        seen = torch.cat(list(pictures)).to(values.dtype)
        values = values.masked_scatter(picture[:, None], seen)
    sample = source // n
    lengths = torch.bincount(sample, minlength=b)
    inside = torch.arange(len(source), device=source.device) - (lengths.cumsum(0) - lengths)[sample]
    if pack is not None:
        rows, starts = _packed(lengths.tolist(), pack)
    else:
        longest = int(lengths.max()) if b else 0
        left = mask is not None and bool(((~real[:, 0]) & real.any(1)).any())
        rows, starts = list(range(b)), [longest - c if left else 0 for c in lengths.tolist()]
    row = torch.tensor(rows, device=source.device)[sample]
    column = torch.tensor(starts, device=source.device)[sample] + inside
    shape = (int(row.max()) + 1 if pack is not None else b, int(column.max()) + 1)

    def placed(what: Tensor, fill: float | int | bool) -> Tensor:
        out = what.new_full((*shape, *what.shape[1:]), fill)
        return out.index_put((row, column), what)

    return Expanded(
        embedded=placed(values, 0),
        mask=placed(torch.ones_like(picture), False),
        source=placed(source, -1),
        picture=placed(picture, False),
        segments=placed(sample, -1) if pack is not None else None,
    )


def _packed(lengths: list[int], size: int) -> tuple[list[int], list[int]]:
    """Returns (row, start) of every sample: longest first, each into the first row with room
    (first-fit decreasing). A sample longer than `size` has a row of its own."""
    rows, starts = [0] * len(lengths), [0] * len(lengths)
    filled: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, f in enumerate(filled) if f + lengths[index] <= size), len(filled))
        if row == len(filled):
            filled.append(0)
        rows[index], starts[index] = row, filled[row]
        filled[row] += lengths[index]
    return rows, starts


def _miscount(marks: int, pictures: int) -> str:
    def some(number: int, word: str) -> str:
        return f"{number or 'no'} {word}{'' if number == 1 else 's'}"

    return (
        f"The text has {some(marks, '<image> mark')} and {some(pictures, 'picture')} "
        f"{'was' if pictures == 1 else 'were'} given; every picture needs one mark of its own."
    )
