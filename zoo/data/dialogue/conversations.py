"""Conversations as batches: tokens with a mark for each picture, and which of them are answers."""

# b samples, n tokens, t tiles of all pictures, c channels, h w pixels

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.data.base import Batch
from zoo.models.vlm.prompts import Asked, encoded

__all__ = ["answered", "collate", "encoder"]


def encoder(model: Any, image_token: int) -> Callable[[str], list[int]]:
    """Returns how a model's tokenizer encodes a text with marks; marks become `image_token`."""
    tokenizer = model.tokenizer
    around = [getattr(model.config, key, ()) for key in ("before", "after")]
    return lambda text: encoded(tokenizer, text, image_token, *around)


def answered(
    asked: Asked, tokenizer: Any, encode: Callable[[str], list[int]]
) -> tuple[list[int], list[bool]]:
    """Returns (ids of a conversation in the tokenizer's template, which of them the assistant
    writes, its end token among them).

    What a turn adds is found by writing the conversation up to it, its turn opened and its turn
    closed; where a token reaches over the border, it is not the answer's.
    """
    ids = encode(asked.render(tokenizer, answer=False))
    places = [False] * len(ids)
    for number, message in enumerate(asked.messages):
        if message["role"] == "assistant":
            before = Asked(asked.messages[:number]).render(tokenizer, answer=True)
            after = Asked(asked.messages[: number + 1]).render(tokenizer, answer=False)
            start, end = (_common(encode(text), ids) for text in (before, after))
            places[start:end] = [True] * (end - start)
    return ids, places


def _common(ids: Sequence[int], others: Sequence[int]) -> int:
    for place, (one, other) in enumerate(zip(ids, others, strict=False)):
        if one != other:
            return place
    return min(len(ids), len(others))


def collate(
    rows: Sequence[tuple[list[int], list[bool]]],
    pixels: Sequence[Tensor] = (),  # t c h w of each picture, in the order of the marks
    sizes: Sequence[tuple[int, int]] = (),
    fill: int = 0,
) -> Batch:
    """Returns `tokens`, `mask`, `answers` (b n), and with pictures `pixels` (t c h w) and `sizes`,
    the height and width of each."""
    longest = max(len(ids) for ids, _ in rows)
    lengths = torch.tensor([len(ids) for ids, _ in rows])
    batch: Batch = {
        "tokens": torch.tensor([ids + [fill] * (longest - len(ids)) for ids, _ in rows]),
        "mask": torch.arange(longest) < lengths[:, None],
        "answers": torch.tensor([p + [False] * (longest - len(p)) for _, p in rows]),
    }
    if pixels:
        batch |= {"pixels": torch.cat(list(pixels)), "sizes": list(sizes)}
    return batch
