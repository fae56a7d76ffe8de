"""Continuous batching: requests join and leave while others are being decoded (Yu et al. 2022,
Orca).

A request that joins is read alone, a chunk at a time, so that the others go on meanwhile; then it
takes part in the one step that all share. Keys and values lie in pages, so that nobody waits for a
batch to be over and nothing is padded in memory. A prompt that begins as a running or a recent one
takes over that one's pages (copy on write) and is read from where they part. What a request gets is
what it would get alone.
"""

# b running requests, n prompt tokens, v vocabulary

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.generation.logits import NEVER, choose, penalised
from zoo.generation.loop import generator_of
from zoo.generation.schema import DecodingOptions
from zoo.generation.steps import Steps
from zoo.nn.paged import PagedCache, PagePool
from zoo.nn.paged import Sequence as Pages

__all__ = ["Batcher", "Request", "Score"]


class Score(NamedTuple):
    """Log-probabilities at one place: of the chosen token, and of the best ones."""

    chosen: float
    best: list[tuple[int, float]]  # token, log-probability; best first


@dataclass(eq=False)
class Request:
    """One prompt on its way."""

    prompt: list[int]
    options: DecodingOptions
    end: Sequence[int] = ()
    # called with every new token; may return True to end the request there
    emit: Callable[[int], bool | None] | None = None
    best: int | None = None  # also note log-probabilities, and those of so many best tokens
    tokens: list[int] = field(default_factory=list)  # the answer so far
    scores: list[Score] = field(default_factory=list)  # of each token, when `best` is set
    done: bool = False
    cancelled: bool = False
    pages: Pages | None = None
    generator: torch.Generator | None = None

    @property
    def room(self) -> int:
        """Tokens that it may come to hold in the cache."""
        return len(self.prompt) + self.options.max_new_tokens

    @property
    def held(self) -> list[int]:
        """The tokens whose keys and values its pages hold."""
        assert self.pages is not None
        return [*self.prompt, *self.tokens][: self.pages.length]


class Batcher:
    """Runs requests together over one pool of pages.

    Args:
        steps: makes `Steps` of the model over a cache, as `CausalSteps(model, cache=cache)` does.
        pool: where keys and values lie.
        most: requests in one step.
        chunk: prompt tokens read between two steps of those that run already; None reads each
            prompt at once, as a model must have it whose prompts are read in both directions.
        keep: finished requests whose pages stay until others need the room, for prompts that begin
            alike (a conversation that goes on); None shares nothing, not even among running ones.
    """

    def __init__(
        self,
        steps: Callable[[PagedCache], Steps],
        pool: PagePool,
        most: int = 16,
        *,
        chunk: int | None = None,
        keep: int | None = 0,
    ) -> None:
        self.steps, self.pool, self.most = steps, pool, most
        self.chunk, self.keep = chunk, keep
        self.waiting: collections.deque[Request] = collections.deque()
        self.reading: collections.deque[Request] = collections.deque()  # their prompts
        self.running: list[Request] = []
        self.kept: list[Request] = []  # finished, the oldest first

    @property
    def busy(self) -> bool:
        """Whether any request is left."""
        return bool(self.running or self.reading or self.waiting)

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
        """Takes a request out, wherever it is; its pages go back before the next step."""
        request.cancelled = True

    def clear(self) -> list[Request]:
        """Takes every request out, gives all pages back, and returns those that were not done."""
        left = [*self.running, *self.reading, *self.waiting]
        for request in left:
            self._leave(request)
        self.waiting.clear()
        self.reading.clear()
        self.running.clear()
        while self.kept:
            self._forget()
        return left

    @torch.inference_mode()
    def step(self) -> bool:
        """Lets requests join, decodes one token for every running one; returns whether any is
        left."""
        self._drop_cancelled()
        while self.waiting and len(self.running) + len(self.reading) < self.most:
            if not self._admit(self.waiting[0]):
                break
            self.reading.append(self.waiting.popleft())
        self._read()
        if self.running:
            cache = PagedCache(self.pool, [r.pages for r in self.running])  # type: ignore[misc]
            last = torch.tensor([[r.tokens[-1]] for r in self.running])
            scores = self.steps(cache).step(last.to(self.pool.slots.device))
            for request, row in zip(list(self.running), scores, strict=True):
                self._take(request, row[None])
        return self.busy

    def run(self) -> None:
        """Steps until every request is done."""
        while self.step():
            pass

    # -- joining -----------------------------------------------------------------------------------

    def _pages(self, request: Request) -> int:
        return -(-request.room // self.pool.page)

    def _admit(self, request: Request) -> bool:
        """Returns whether a request can run to its end, what the others may still take being set
        aside; recent ones are forgotten for that."""
        request.pages = Pages(self.pool)
        request.generator = generator_of(request.options.seed, self.pool.slots.device)
        while self._promised(request) > len(self.pool.available):
            if not self.kept:
                return False
            self._forget()
        return True

    def _promised(self, *more: Request) -> int:
        """Returns how many pages may still be taken."""
        return sum(map(self._owed, [*self.running, *self.reading, *more]))

    def _owed(self, request: Request) -> int:
        """Returns how many pages a request may still take; a shared page that it goes on writing
        is one, since it will be copied."""
        pages = request.pages
        assert pages is not None
        return self._pages(request) - len(pages.pages) + pages.shares_its_end()

    def _share(self, request: Request) -> None:
        """Begins a request with the pages of the one whose tokens begin most like its prompt."""
        donor, same = self._nearest(request.prompt)
        if donor is None or donor.pages is None or request.pages is None:
            return
        request.pages = donor.pages.fork()
        request.pages.rewind(same)
        if self._promised() > len(self.pool.available):  # no room to copy a page: only whole ones
            request.pages.rewind(same // self.pool.page * self.pool.page)

    def _nearest(self, prompt: list[int]) -> tuple[Request | None, int]:
        """Returns (request, number of tokens) that share the longest beginning with a prompt, but
        for its last token, which must be read to know what follows it."""
        found: tuple[Request | None, int] = (None, 0)
        if self.keep is None:
            return found
        for other in [*self.running, *self.reading, *self.kept]:
            same = 0
            for ours, theirs in zip(prompt[:-1], other.held, strict=False):
                if ours != theirs:
                    break
                same += 1
            if same > found[1]:
                found = other, same
        return found

    def _read(self) -> None:
        """Reads prompts of those that joined, `chunk` tokens in all."""
        budget = self.chunk
        while self.reading and budget != 0:
            request = self.reading[0]
            assert request.pages is not None
            if request.pages.length == 0:
                self._share(request)
            start = request.pages.length
            new = request.prompt[start : None if budget is None else start + budget]
            cache = PagedCache(self.pool, [request.pages])
            scores = self.steps(cache).step(torch.tensor([new], device=self.pool.slots.device))
            if budget is not None:
                budget -= len(new)
            if request.pages.length == len(request.prompt):
                self.reading.popleft()
                self.running.append(request)
                self._take(request, scores)

    # -- going on and leaving ----------------------------------------------------------------------

    def _take(self, request: Request, scores: Tensor) -> None:
        """Chooses a request's next token (scores 1 v) and ends it where it ends."""
        options = request.options
        logs = None if request.best is None else scores[0].float().log_softmax(-1)
        if options.repetition_penalty != 1.0:
            seen = torch.tensor([[*request.prompt, *request.tokens]], device=scores.device)
            scores = penalised(scores, seen, options.repetition_penalty)
        if len(request.tokens) < options.min_new_tokens and request.end:
            scores = scores.clone()
            scores[:, list(request.end)] = NEVER
        token = int(choose(scores, options, request.generator))
        request.tokens.append(token)
        if logs is not None and request.best is not None:
            values, ids = logs.topk(request.best)
            best = list(zip(ids.tolist(), values.tolist(), strict=True))
            request.scores.append(Score(float(logs[token]), best))
        over = request.emit is not None and request.emit(token)
        if over or token in request.end or len(request.tokens) == options.max_new_tokens:
            self.running.remove(request)
            self._leave(request, self.keep or 0)

    def _leave(self, request: Request, keep: int = 0) -> None:
        request.done = True
        if keep and request.pages is not None:
            self.kept.append(request)
            if len(self.kept) > keep:
                self._forget()
        elif request.pages is not None:
            request.pages.rewind(0)

    def _forget(self) -> None:
        """Gives the pages of the request back that was finished longest ago."""
        pages = self.kept.pop(0).pages
        assert pages is not None
        pages.rewind(0)

    def _drop_cancelled(self) -> None:
        for place in (self.running, self.reading, self.waiting):
            for request in [r for r in place if r.cancelled]:
                place.remove(request)
                self._leave(request)
