"""Continuous batching: requests join and leave while others are being decoded (Yu et al. 2022,
Orca).

Requests that join are read first, short ones side by side in one pass, long ones a chunk at a time,
so that the others go on meanwhile; then they take part in the one step that all share. Keys and
values lie in pages, so that nobody waits for a batch to be over and nothing is padded in memory. A
prompt that begins as a running or a recent one takes over that one's pages (copy on write) and is
read from where they part. What a request gets is what it would get alone.
"""

# b running requests, n prompt tokens, v vocabulary

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.generation.logits import NEVER, choose, likeliest, penalised
from zoo.generation.loop import generator_of
from zoo.generation.schema import DecodingOptions
from zoo.generation.steps import Steps
from zoo.nn.paged import PagedCache, PagePool
from zoo.nn.paged import Sequence as Pages

__all__ = ["Batcher", "Reads", "Request", "Score"]

TOGETHER = 512  # tokens of prompts read in one pass; products get no faster with more


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


class Reads(Steps, Protocol):
    """Steps that also take in prompts of different lengths side by side."""

    def read(self, prompts: list[list[int]]) -> Tensor:
        """Takes in what is new of each sequence of a paged cache and returns the scores of what
        follows each (b v)."""


class Batcher:
    """Runs requests together over one pool of pages.

    Args:
        steps: makes steps of the model over a cache, as `CausalSteps(model, cache=cache)` does.
        pool: where keys and values lie.
        most: requests in one step.
        chunk: prompt tokens read between two steps of those that run already; None reads each
            prompt at once, as a model must have it whose prompts are read in both directions.
        keep: finished requests whose pages stay until others need the room, for prompts that begin
            alike (a conversation that goes on); None shares nothing, not even among running ones.
    """

    def __init__(
        self,
        steps: Callable[[PagedCache], Reads],
        pool: PagePool,
        most: int = 16,
        *,
        chunk: int | None = None,
        keep: int | None = 0,
    ) -> None:
        self.pool, self.most = pool, most
        self.cache = PagedCache(pool, [])  # of those whose turn it is
        self.steps = steps(self.cache)
        self.chunk, self.keep = chunk, keep
        self.waiting: collections.deque[Request] = collections.deque()
        self.reading: list[Request] = []  # whose prompts are being read
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
        self.running, self.reading = [], []
        self.waiting.clear()
        while self.kept:
            self._forget()
        return left

    @torch.inference_mode()
    def step(self) -> bool:
        """Lets requests join, decodes one token for every running one; returns whether any is
        left."""
        self._drop_cancelled()
        self._join()
        if self.running:
            self._turn(self.running)
            last = torch.tensor([[r.tokens[-1]] for r in self.running])
            self._take(list(self.running), self.steps.step(last.to(self.pool.slots.device)))
        return self.busy

    def run(self) -> None:
        """Steps until every request is done."""
        while self.step():
            pass

    def _turn(self, requests: list[Request]) -> None:
        """Makes it the turn of these requests."""
        self.cache.sequences = [r.pages for r in requests]  # type: ignore[misc]

    # -- joining -----------------------------------------------------------------------------------

    def _join(self) -> None:
        """Reads prompts, `chunk` tokens in all, while there is room."""
        budget = self.chunk
        while budget != 0:
            self._gather(budget)
            if not self.reading:
                return
            first = self.reading[0]
            new = [r.prompt[r.pages.length :] for r in self.reading]  # type: ignore[union-attr]
            new[0] = new[0][:budget]
            self._turn(self.reading)
            scores = self.steps.read(new)
            if budget is not None:
                budget -= sum(len(tokens) for tokens in new)
            if first.pages.length == len(first.prompt):  # type: ignore[union-attr]
                read, self.reading = self.reading, []
                self.running += read
                self._take(read, scores)

    def _gather(self, budget: int | None) -> None:
        """Admits requests that are read in one pass: the first whatever its length, the others
        while all fit into what one pass and the budget allow and each reads its whole prompt."""
        most = min(TOGETHER, budget or TOGETHER)
        held = [r.pages.length for r in self.reading if r.pages is not None]  # of one half read
        total = sum(len(r.prompt) for r in self.reading) - sum(held)
        while self.waiting and len(self.running) + len(self.reading) < self.most:
            request = self.waiting[0]
            donor, same = self._nearest(request.prompt)
            more = len(request.prompt) - same
            if self.reading and (total + more > most or self._follows(request, same)):
                return
            if not self._admit(request, donor, same):
                return
            self.reading.append(self.waiting.popleft())
            total += more

    def _follows(self, request: Request, same: int) -> bool:
        """Returns whether a prompt can take over more pages once those that are being read are."""
        if self.keep is None:
            return False
        alike = max(_alike(request.prompt[:-1], other.prompt) for other in self.reading)
        return alike >= max(same + 1, self.pool.page)

    def _pages(self, request: Request) -> int:
        return -(-request.room // self.pool.page)

    def _admit(self, request: Request, donor: Request | None, same: int) -> bool:
        """Gives a request all the pages that it may need, those of the first `same` tokens from a
        donor; who finished longest ago makes room. Returns whether there was."""
        pages = Pages(self.pool)
        if donor is not None and donor.pages is not None:
            pages = donor.pages.fork()
            pages.rewind(same)
        needed = self._pages(request) - pages.length // self.pool.page
        while needed > len(self.pool.available):
            if not self.kept:
                pages.rewind(0)
                return False
            self._forget()
        pages.reserve(request.room)
        request.pages = pages
        request.generator = generator_of(request.options.seed, self.pool.slots.device)
        return True

    def _nearest(self, prompt: list[int]) -> tuple[Request | None, int]:
        """Returns (request, number of tokens) that share the longest beginning with a prompt, a
        page or more, but for its last token, which must be read to know what follows it."""
        found: tuple[Request | None, int] = (None, 0)
        for other in [*self.running, *self.kept] if self.keep is not None else ():
            same = _alike(prompt[:-1], other.held)
            if same >= max(found[1] + 1, self.pool.page):
                found = other, same
        return found

    # -- going on and leaving ----------------------------------------------------------------------

    def _take(self, requests: list[Request], scores: Tensor) -> None:
        """Chooses the next token of requests (scores b v) and ends those that end."""
        best = likeliest(scores).tolist()
        for index, request in enumerate(requests):
            row = scores[index, None]
            token = best[index] if _is_plain(request) else self._choice(request, row)
            request.tokens.append(token)
            if request.best is not None:
                request.scores.append(_score(row[0], token, request.best))
            over = request.emit is not None and request.emit(token)
            full = len(request.tokens) == request.options.max_new_tokens
            if over or full or token in request.end:
                self.running.remove(request)
                self._leave(request, self.keep or 0)

    def _choice(self, request: Request, scores: Tensor) -> int:
        options = request.options
        if options.repetition_penalty != 1.0:
            seen = torch.tensor([[*request.prompt, *request.tokens]], device=scores.device)
            scores = penalised(scores, seen, options.repetition_penalty)
        if len(request.tokens) < options.min_new_tokens and request.end:
            scores = scores.clone()
            scores[:, list(request.end)] = NEVER
        return int(choose(scores, options, request.generator))

    def _leave(self, request: Request, keep: int = 0) -> None:
        request.done = True
        pages = request.pages
        if pages is not None:
            pages.rewind(pages.length if keep else 0)  # what it did not come to need goes back
        if keep and pages is not None:
            self.kept.append(request)
            if len(self.kept) > keep:
                self._forget()

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


def _alike(one: list[int], other: list[int]) -> int:
    """Returns how many tokens two begin with in common."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _is_plain(request: Request) -> bool:
    """Returns whether the best token is the choice."""
    options = request.options
    forbids = len(request.tokens) < options.min_new_tokens and bool(request.end)
    return options.temperature == 0 and options.repetition_penalty == 1.0 and not forbids


def _score(scores: Tensor, token: int, best: int) -> Score:
    """Returns the log-probabilities of a chosen token and of the best ones (scores v)."""
    logs = scores.float().log_softmax(-1)
    values, ids = logs.topk(best)
    return Score(float(logs[token]), list(zip(ids.tolist(), values.tolist(), strict=True)))
