"""Steps whose shapes and addresses never change: one CUDA graph, or one compiled graph, per answer.

The prompt is read as ever. From then on a step takes one token per sequence, reads the whole cache
under a mask, and (where nothing comes between) chooses the next token; on a GPU all of it is one
captured graph, replayed without waiting for the device. On a CPU the same code runs eagerly, slower
than with a cache that is sliced; it is there for tests and for `torch.compile`.
"""

# b sequences, n new tokens, k room for tokens, v vocabulary

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.generation.logits import choose
from zoo.generation.schema import DecodingOptions
from zoo.generation.steps import Steps
from zoo.nn.cache import FixedCache

__all__ = ["FixedSteps", "Forward", "room"]

# (tokens b n, mask of past and new tokens b k or None, cache, last only) -> scores b n v
Forward = Callable[[Tensor, Tensor | None, FixedCache, bool], Tensor]
Mode = Literal["eager", "graph", "compile"]


def room(tokens: int) -> int:
    """Returns the capacity for so many tokens: few different ones, so that graphs are shared."""
    return -(-tokens // 256) * 256


class FixedSteps(Steps):
    """Steps over a FixedCache.

    Args:
        forward: the model.
        capacity: tokens that fit, prompt and answer.
        batch: sequences.
        device: where the model is.
        mask: the prompt's real tokens (b n); None when all are.
        mode: `graph` captures a CUDA graph, `compile` uses torch.compile, `eager` neither.
    """

    def __init__(
        self,
        forward: Forward,
        capacity: int,
        batch: int = 1,
        device: torch.device | str = "cpu",
        mask: Tensor | None = None,
        mode: Mode = "eager",
    ) -> None:
        self.forward, self.mode, self.device = forward, mode, torch.device(device)
        self.cache = FixedCache(capacity)
        self.length = 0
        self.token = torch.zeros(batch, 1, dtype=torch.long, device=device)
        self.place = torch.zeros(1, dtype=torch.long, device=device)
        self.real = torch.zeros(batch, capacity, dtype=torch.bool, device=device)
        self.prompt = None if mask is None or bool(mask.all()) else mask.bool()
        self.graphs: dict[Any, tuple[Any, Tensor]] = {}

    def step(self, tokens: Tensor, every: bool = False) -> Tensor:
        """Takes the next tokens (b n) in; returns scores as `Steps.step` does."""
        count = tokens.shape[1]
        if self.length and count == 1 and not every:
            return self._fixed(tokens, None, None).clone()
        end = self.length + count
        self._check(end)
        real: Tensor | bool = True
        if self.prompt is not None and not self.length:
            real = self.prompt
        self.real[:, self.length : end] = real
        mask = None if self.prompt is None else self.real[:, :end]
        scores = self.forward(tokens, mask, self.cache, not every)
        self.length = end
        return scores if every else scores[:, -1]

    def sample(
        self, tokens: Tensor, options: DecodingOptions, generator: torch.Generator | None
    ) -> Tensor:
        """Takes the next tokens (b 1) in and returns those that follow (b)."""
        return self._fixed(tokens, options, generator).clone()

    def _fixed(
        self, tokens: Tensor, options: DecodingOptions | None, generator: torch.Generator | None
    ) -> Tensor:
        """Returns scores (b v), or with `options` choices (b); the next call overwrites them."""
        self._check(self.length + 1)
        self.token.copy_(tokens)
        self.place.fill_(self.length)
        self.cache.place = self.place
        try:
            found = self._run(options, generator)
        finally:
            self.cache.place = None
        self.cache.advance()
        self.length += 1
        return found

    def _run(self, options: DecodingOptions | None, generator: torch.Generator | None) -> Tensor:
        if self.mode != "graph":
            body = _compiled() if self.mode == "compile" else _scores
            scores = body(self.forward, self.token, self.place, self.real, self.cache)
            return scores if options is None else choose(scores, options, generator)
        key = (id(options), id(generator))
        if key not in self.graphs:
            self.graphs[key] = self._capture(options, generator)
        graph, found = self.graphs[key]
        graph.replay()
        return found

    def _capture(
        self, options: DecodingOptions | None, generator: torch.Generator | None
    ) -> tuple[Any, Tensor]:
        """Returns a graph and where it writes. A step may run again: it writes what it wrote."""

        def body() -> Tensor:
            scores = _scores(self.forward, self.token, self.place, self.real, self.cache)
            return scores if options is None else choose(scores, options, generator)

        device = self.token.device
        drawn = generator or torch.cuda.default_generators[device.index or 0]
        state = drawn.get_state()
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):  # kernels are chosen and memory is found before capturing
            for _ in range(2):
                body()
        torch.cuda.current_stream(device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        if generator is not None:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            found = body()
        drawn.set_state(state)
        return graph, found

    def _check(self, length: int) -> None:
        if length > self.cache.capacity:
            raise ConfigError(
                f"There is room for {self.cache.capacity} tokens and {length} are asked for."
            )

    def select(self, rows: Tensor) -> None:
        """Makes the batch the given rows of it; another number of rows costs a new graph."""
        if len(rows) != len(self.token):
            self.graphs.clear()
            self.token = self.token.index_select(0, rows)
            self.real = self.real.index_select(0, rows)
        else:
            self.real.copy_(self.real.index_select(0, rows))
        self.cache.select(rows)

    def rewind(self, count: int) -> None:
        """Takes the last `count` tokens back."""
        self.length -= count
        self.real[:, self.length :] = False
        self.cache.rewind(self.length)


def _scores(
    forward: Forward, token: Tensor, place: Tensor, real: Tensor, cache: FixedCache
) -> Tensor:
    real.index_fill_(1, place, True)
    return forward(token, real, cache, True)[:, -1]


_graphs: list[Any] = []


def _compiled() -> Any:
    """Returns the compiled step; one for the process, which keeps a graph per model and shape."""
    if not _graphs:
        _graphs.append(torch.compile(_scores, dynamic=False, fullgraph=True))
    return _graphs[0]
