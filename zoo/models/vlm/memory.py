"""What a model remembers of the last prompt, so that a second question about a picture costs a
question.

A picture is known by its pixels. While a prompt is being continued its memory is in the hands of
who does so; another thread then finds none and starts from nothing.
"""

# m tokens of a picture, d width

from __future__ import annotations

import collections
import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from zoo.nn.cache import DynamicCache

__all__ = ["Memory", "Prompt", "digest_of", "state_of"]

PICTURES = 8  # whose tokens are kept


@dataclass
class Prompt:
    """A prompt in memory: words and pictures, how many places each takes, keys and values."""

    items: list[int | str] = field(default_factory=list)  # ids of words, digests of pictures
    lengths: list[int] = field(default_factory=list)
    cache: DynamicCache = field(default_factory=DynamicCache)


class Memory:
    """The last prompt, and the tokens of the last pictures; of one state of the weights."""

    def __init__(self, state: int) -> None:
        self.state = state
        self.prompt: Prompt | None = None
        self.pictures: collections.OrderedDict[str, Tensor] = collections.OrderedDict()

    def take(self, items: list[int | str]) -> tuple[Prompt, int]:
        """Returns (a prompt to go on with, how many of the items it covers): the longest common
        beginning, but for the last item, which must be read to know what follows it."""
        prompt, self.prompt = self.prompt, None
        if prompt is None:
            return Prompt(), 0
        covered = places = 0
        for ours, theirs, length in zip(items[:-1], prompt.items, prompt.lengths, strict=False):
            if ours != theirs or places + length > prompt.cache.length:
                break
            covered, places = covered + 1, places + length
        prompt.cache.rewind(places)
        del prompt.items[covered:], prompt.lengths[covered:]
        return prompt, covered

    def keep_picture(self, digest: str, tokens: Tensor) -> None:
        """Keeps the tokens (m d) of a picture, and forgets the one that was not met for longest."""
        self.pictures[digest] = tokens
        self.pictures.move_to_end(digest)
        while len(self.pictures) > PICTURES:
            self.pictures.popitem(last=False)

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        held = self.prompt.cache.nbytes if self.prompt else 0
        return held + sum(tokens.nbytes for tokens in self.pictures.values())


def state_of(model: nn.Module) -> int:
    """Returns a number that changes whenever a weight is replaced or written to."""
    return hash(
        tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in model.parameters())
    )


def digest_of(tiles: Tensor, size: tuple[int, int]) -> str:
    """Returns what a picture (t c h w) is known by."""
    digest = hashlib.blake2b(f"{tuple(tiles.shape)} {tiles.dtype} {size}".encode(), digest_size=16)
    digest.update(tiles.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
