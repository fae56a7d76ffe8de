"""Continuous batching: requests join and leave while others are being decoded (Yu et al. 2022,
Orca).

A request that joins is read alone, then takes part in the one step that all share. Keys and values
lie in pages, so that nobody waits for a batch to be over and nothing is padded in memory. What a
request gets is what it would get alone.
"""

# b running requests, n prompt tokens

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.generation.logits import NEVER, choose, penalised
from zoo.generation.loop import generator_of
from zoo.generation.schema import DecodingOptions
from zoo.generation.steps import Steps
from zoo.nn.paged import PagedCache, PagePool
from zoo.nn.paged import Sequence as Pages

__all__ = ["Batcher", "Request"]


@dataclass
class Request:
    """One prompt on its way."""

    prompt: list[int]
    options: DecodingOptions
    end: Sequence[int] = ()
    emit: Callable[[int], None] | None = None  # called with every new token
    tokens: list[int] = field(default_factory=list)  # the answer so far
    done: bool = False
    cancelled: bool = False
    pages: Pages | None = None
    generator: torch.Generator | None = None

    @property
    def room(self) -> int:
        """Tokens that it may come to hold in the cache."""
        return len(self.prompt) + self.options.max_new_tokens


class Batcher:
    """Runs requests together over one pool of pages.

    Args:
        steps: makes `Steps` of the model over a cache, as `CausalSteps(model, cache=cache)` does.
        pool: where keys and values lie.
        most: requests in one step.
    """

    def __init__(
        self, steps: Callable[[PagedCache], Steps], pool: PagePool, most: int = 16
    ) -> None:
        self.steps, self.pool, self.most = steps, pool, most
        self.waiting: collections.deque[Request] = collections.deque()
        self.running: list[Request] = []

    def submit(self, request: Request) -> Request:
        """Queues a request; raises ConfigError when it could never fit."""
        if not request.prompt:
            raise ConfigError("A prompt needs at least one token.")
        if request.options.beams > 1 or request.options.results > 1:
            raise ConfigError("Continuous batching decodes one sequence a request, without beams.")
        if self._pages(request) > len(self.pool.holders):
            raise ConfigError(
                f"The prompt and its answer may take {request.room} tokens and the pool holds "
                f"{len(self.pool.holders) * self.pool.page}; shorten it or ask for fewer."
            )
        self.waiting.append(request)
        return request

    def cancel(self, request: Request) -> None:
        """Takes a request out, wherever it is; its pages go back at once or before the next
        step."""
        request.cancelled = True

    @torch.inference_mode()
    def step(self) -> bool:
        """Lets requests join, decodes one token for every running one; returns whether any is
        left."""
        self._drop_cancelled()
        while self.waiting and len(self.running) < self.most and self._fits(self.waiting[0]):
            self._join(self.waiting.popleft())
        if self.running:
            cache = PagedCache(self.pool, [r.pages for r in self.running])  # type: ignore[misc]
            last = torch.tensor([[r.tokens[-1]] for r in self.running])
            scores = self.steps(cache).step(last.to(self.pool.slots.device))
            for request, row in zip(list(self.running), scores, strict=True):
                self._take(request, row[None])
        return bool(self.running or self.waiting)

    def run(self) -> None:
        """Steps until every request is done."""
        while self.step():
            pass

    def _pages(self, request: Request) -> int:
        return -(-request.room // self.pool.page)

    def _fits(self, request: Request) -> bool:
        """Returns whether it can run to its end: what running ones may still take is set aside."""
        promised = sum(self._pages(r) - len(r.pages.pages) for r in self.running if r.pages)
        return self._pages(request) + promised <= len(self.pool.available)

    def _join(self, request: Request) -> None:
        request.pages = Pages(self.pool)
        request.generator = generator_of(request.options.seed, self.pool.slots.device)
        cache = PagedCache(self.pool, [request.pages])
        prompt = torch.tensor([request.prompt], device=self.pool.slots.device)
        scores = self.steps(cache).step(prompt)
        self.running.append(request)
        self._take(request, scores)

    def _take(self, request: Request, scores: Tensor) -> None:
        """Chooses a request's next token (scores 1 v) and ends it where it ends."""
        options = request.options
        if options.repetition_penalty != 1.0:
            seen = torch.tensor([[*request.prompt, *request.tokens]], device=scores.device)
            scores = penalised(scores, seen, options.repetition_penalty)
        if len(request.tokens) < options.min_new_tokens and request.end:
            scores = scores.clone()
            scores[:, list(request.end)] = NEVER
        token = int(choose(scores, options, request.generator))
        request.tokens.append(token)
        if request.emit is not None:
            request.emit(token)
        if token in request.end or len(request.tokens) == options.max_new_tokens:
            self._finish(request)

    def _finish(self, request: Request) -> None:
        request.done = True
        if request.pages is not None:
            request.pages.rewind(0)
        if request in self.running:
            self.running.remove(request)

    def _drop_cancelled(self) -> None:
        for request in [r for r in self.running if r.cancelled]:
            self._finish(request)
        for request in [r for r in self.waiting if r.cancelled]:
            request.done = True
            self.waiting.remove(request)
