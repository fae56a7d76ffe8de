"""What decoding sees of a text model: prompts being continued, one step at a time."""

# b sequences, n new tokens, k past and new tokens, m source tokens, v vocabulary

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.generation.fixed import FixedSteps, room
from zoo.generation.schema import DecodingOptions
from zoo.generation.steps import Steps
from zoo.nn.cache import CACHES, Cache, DynamicCache
from zoo.nn.forms import prepare
from zoo.nn.paged import PagedCache, PagePool
from zoo.registry.suggest import hint

__all__ = ["CausalSteps", "Seq2SeqSteps", "cache_named", "page_pool", "steps_for"]


class CausalSteps(Steps):
    """A decoder-only model continuing a batch; shorter prompts are padded on the left."""

    def __init__(
        self,
        model: Any,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        embedded: Tensor | None = None,  # b n d
    ) -> None:
        """`mask` (b n) marks the prompt's real tokens; it is not needed when all have one length.

        `embedded` is read in place of the first n tokens: what is no word of the vocabulary.
        """
        self.model, self.device = model, next(model.parameters()).device
        self.embedded = embedded
        self.cache = cache if cache is not None else DynamicCache()
        self.mask = None if mask is None or bool(mask.all()) else mask.bool()  # of past tokens
        self.prepared: set[int] = set()  # for how many rows the model is

    def step(self, tokens: Tensor, every: bool = False) -> Tensor:
        self._prepare(len(tokens))
        mask = self._extended(tokens)
        given: dict[str, Any] = {"cache": self.cache, "last": not every}
        if self.embedded is not None:
            given["embedded"] = self.embedded[:, : tokens.shape[1]]
            rest = self.embedded[:, tokens.shape[1] :]
            self.embedded = rest if rest.shape[1] else None
        logits = self.model(tokens, mask, **given).logits
        return logits if every else logits[:, -1]

    def read(self, prompts: list[list[int]]) -> Tensor:
        """Takes in what is new of each sequence of a paged cache, however many tokens, and returns
        the scores of what follows each (b v): in one pass, where the model's parts allow it."""
        cache, device = self.cache, self.device
        assert isinstance(cache, PagedCache)
        if len(prompts) == 1:
            return self.step(torch.tensor(prompts, device=device))
        if not self.packs:
            alone = (
                CausalSteps(self.model, None, PagedCache(cache.pool, [s])) for s in cache.sequences
            )
            return torch.cat([s.read([p]) for s, p in zip(alone, prompts, strict=True)])
        self._prepare(len(prompts))
        counts = [len(prompt) for prompt in prompts]
        cache.begin(counts)
        row = torch.tensor([[token for prompt in prompts for token in prompt]], device=device)
        ends = torch.tensor(counts, device=device).cumsum(0) - 1
        return self.model(row, cache=cache, last=ends).logits[0]

    @cached_property
    def packs(self) -> bool:
        """Whether sequences of different lengths need no padding in a pool."""
        return not self.model.config.prefix_lm and self.model.backbone.packs

    def _prepare(self, rows: int) -> None:
        """Readies the model for so many sequences."""
        if rows not in self.prepared:
            self.prepared.add(rows)
            prepare(self.model, rows)

    def _extended(self, tokens: Tensor) -> Tensor | None:
        """Returns the mask of past and new tokens; the first call's tokens are the prompt
        itself."""
        if isinstance(self.cache, PagedCache):
            self.cache.begin(tokens.shape[1], self.packs and self.cache.by_row)
            if self.cache.alone:
                return None
            real = self.cache.mask()
            return None if bool(real.all()) else real
        if self.mask is None:
            return None
        past = self.cache.length
        if self.mask.shape[1] < past + tokens.shape[1]:
            more = past + tokens.shape[1] - self.mask.shape[1]
            ones = self.mask.new_ones(self.mask.shape[0], more)
            self.mask = torch.cat([self.mask, ones], dim=1)
        return self.mask[:, : past + tokens.shape[1]]

    def select(self, rows: Tensor) -> None:
        self.cache.select(rows)
        if self.mask is not None:
            self.mask = self.mask.index_select(0, rows)
        if self.embedded is not None:
            self.embedded = self.embedded.index_select(0, rows)

    def rewind(self, count: int) -> None:
        self.cache.rewind(self.cache.length - count)
        if self.mask is not None:
            self.mask = self.mask[:, : self.cache.length]


class Seq2SeqSteps(Steps):
    """An encoder-decoder writing targets for a batch of sources; the sources are read once."""

    def __init__(
        self,
        model: Any,
        source: Tensor | None,  # b m
        source_mask: Tensor | None = None,
        cache: Cache | None = None,
        memory: Tensor | None = None,  # b m d, where the source has been read already
    ) -> None:
        self.model, self.device = model, next(model.parameters()).device
        self.cache = cache if cache is not None else DynamicCache()
        self.memory: Tensor | None = model.encode(source, source_mask) if memory is None else memory
        padded = source_mask is not None and not bool(source_mask.all())
        self.source_mask = source_mask if padded else None
        self.rows = 0  # that the decoder is prepared for

    def step(self, tokens: Tensor, every: bool = False) -> Tensor:
        self.prepare(len(tokens))
        if isinstance(self.cache, PagedCache):
            self.cache.begin(tokens.shape[1])
        logits = self.model.decode(
            tokens, self.memory, self.source_mask, cache=self.cache, last=not every
        ).logits
        self.memory = None  # the cache has its keys and values from the first step on
        return logits if every else logits[:, -1]

    def prepare(self, rows: int) -> None:
        """Readies the decoder for so many sequences; at every step, since beams change them."""
        if self.rows != rows:
            self.rows = rows
            prepare(self.model.decoder, rows)
            prepare(self.model.head, rows)

    def select(self, rows: Tensor) -> None:
        self.cache.select(rows)
        if self.memory is not None:
            self.memory = self.memory.index_select(0, rows)
        if self.source_mask is not None:
            self.source_mask = self.source_mask.index_select(0, rows)

    def rewind(self, count: int) -> None:
        self.cache.rewind(self.cache.length - count)


def cache_named(name: str) -> Cache:
    """Returns an empty cache: "full", or "int8" for a quarter of fp32's memory. Raises
    ConfigError."""
    if name not in CACHES:
        known = f"There are: {', '.join(CACHES)}."
        raise ConfigError(f"cache: there is no {name!r}.{hint(name, CACHES, known)}")
    return CACHES[name]()


def steps_for(
    model: Any, tokens: Tensor, mask: Tensor, wanted: DecodingOptions, cache: str = "full"
) -> Steps:
    """Returns the steps that answer prompts (b n): of fixed shape for a model that was loaded with
    `compile=True` (a CUDA graph on a GPU, torch.compile elsewhere), else ordinary ones."""
    if not getattr(model, "compiled", False):
        return CausalSteps(model, mask, cache_named(cache))
    if cache != "full":
        raise ConfigError("cache: compiled steps write into one of their own; leave it out.")
    mode: Any = "graph" if tokens.device.type == "cuda" else "compile"
    capacity = room(tokens.shape[1] + wanted.max_new_tokens)
    return FixedSteps(model.fixed_scores, capacity, len(tokens), tokens.device, mask, mode)


def page_pool(model: Any, tokens: int, page: int, most: int) -> PagePool:
    """Returns a pool for so many tokens of a decoder-only model, but of `most` bytes at most.

    Raises ConfigError when its layers do not all hold keys and values of one shape.
    """
    weight = next(model.parameters())
    layers = [layer.attention for layer in model.backbone.layers]
    shapes = {(getattr(a, "kv_heads", None), getattr(a, "head_dim", None)) for a in layers}
    heads, channels = next(iter(shapes)) if len(shapes) == 1 else (None, None)
    if heads is None or channels is None:
        raise ConfigError(
            "This model's layers do not all keep keys and values of one shape; no pages fit them."
        )
    bytes_of_token = 2 * len(layers) * heads * channels * weight.element_size()
    pages = min(-(-tokens // page), most // (bytes_of_token * page))
    if pages < 1:
        raise ConfigError(
            f"A page of {page} tokens takes {bytes_of_token * page} bytes and {most} are allowed."
        )
    return PagePool(pages, page, len(layers), heads, channels, weight.dtype, weight.device)
