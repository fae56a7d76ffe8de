"""Batches of texts: rows of tokens filled up to one length. torch is imported when one is made."""

# b batch, n tokens

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TextBatch", "fill", "texts_of"]


@dataclass(frozen=True)
class TextBatch:
    """Texts of one batch, filled up to one length. Unpacks as `tokens, mask = batch`."""

    tokens: Tensor  # b n, long
    mask: Tensor  # b n, bool: true where a token stands, false where padding does
    segments: Tensor  # b n, long: which of two texts a token belongs to, as BERT's token types

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.tokens, self.mask))


def fill(
    rows: Sequence[tuple[list[int], list[int]]],
    pad: int | None,
    *,
    side: str,
    width: int = 0,
    multiple: int = 1,
) -> TextBatch:
    """Returns rows of (ids, segments) as one batch, filled up on a side with the id `pad`.

    The batch is as wide as its longest row, at least `width`, and a multiple of `multiple`.
    Raises: DataError when rows must be filled up and there is no `pad`.
    """
    import torch

    if side not in ("right", "left"):
        raise DataError(f"padding: must be 'right' or 'left', got {side!r}.")
    width = max([width, *(len(ids) for ids, _ in rows)])
    width = -(-width // multiple) * multiple
    if pad is None and any(len(ids) != width for ids, _ in rows):
        raise DataError(
            "A batch of unequal texts needs a padding token; set tokenizer.special.pad to one."
        )
    tokens = torch.full((len(rows), width), pad or 0, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    segments = torch.zeros(len(rows), width, dtype=torch.long)
    for row, (ids, types) in enumerate(rows):
        start = 0 if side == "right" else width - len(ids)
        place = slice(start, start + len(ids))
        tokens[row, place] = torch.tensor(ids, dtype=torch.long)
        segments[row, place] = torch.tensor(types, dtype=torch.long)
        mask[row, place] = True
    return TextBatch(tokens, mask, segments)


def texts_of(
    text: str | Sequence[str], pair: str | Sequence[str] | None
) -> tuple[list[str], list[str] | None]:
    """Returns both arguments as lists of the same length; raises DataError for what is no text."""
    firsts = [text] if isinstance(text, str) else list(text)
    seconds = None if pair is None else [pair] if isinstance(pair, str) else list(pair)
    for one in (*firsts, *(seconds or ())):
        if not isinstance(one, str):
            raise DataError(f"A text is a string, not {type(one).__name__}.")
        try:
            one.encode()
        except UnicodeEncodeError:
            raise DataError(
                "The text holds half a surrogate pair, which is no character."
            ) from None
    if seconds is not None and len(seconds) != len(firsts):
        raise DataError(f"{len(firsts)} texts and {len(seconds)} second texts do not pair up.")
    return firsts, seconds
