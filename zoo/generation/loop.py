"""The autoregressive loop: one loop for greedy, sampling, streaming and ragged batches."""

# b sequences, n tokens, v vocabulary

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zoo.generation.logits import NEVER, choose, penalised
from zoo.generation.schema import DecodingOptions, LogitsCallback
from zoo.generation.steps import Steps

__all__ = ["Decoded", "decode", "generator_of", "stream"]


@dataclass
class Decoded:
    """What decoding gives: new tokens of each sequence, without padding, with the end token."""

    tokens: list[list[int]]
    scores: list[float] = field(default_factory=list)  # sum of log-probabilities, where kept
    finished: list[bool] = field(default_factory=list)  # ended by itself, not by the limit


def generator_of(seed: int | None, device: torch.device) -> torch.Generator | None:
    """Returns torch's generator for a seed, or None to draw from the global one."""
    return None if seed is None else torch.Generator(device).manual_seed(seed)


def stream(
    steps: Steps,
    prompt: Tensor,  # b n, padded on the left where lengths differ
    options: DecodingOptions,
    end: Sequence[int] = (),
    callbacks: Sequence[LogitsCallback] = (),
    known: Tensor | None = None,  # b m, new tokens that are given; -1 where they are not
    logs: list[Tensor] | None = None,
) -> Iterator[Tensor]:
    """Yields the next token of every sequence (b), step by step, until the caller stops asking.

    Where `logs` is given, the log-probability of every token that is yielded (b) goes there: the
    model's own, after penalties and callbacks and before temperature and filters.

    The loop never looks at a token itself, so nothing waits for a device; who consumes the stream
    decides when it is over.
    """
    generator = generator_of(options.seed, prompt.device)
    ends = torch.tensor(sorted(end), dtype=torch.long, device=prompt.device)
    tokens, new = prompt, prompt
    keep = options.repetition_penalty != 1.0 or bool(callbacks)
    # Steps of fixed shape can make the step and the choice one, when nothing comes between them.
    between = keep or options.min_new_tokens or known is not None
    sample = None if between else getattr(steps, "sample", None)
    for index in range(options.max_new_tokens):
        if sample is not None and index:
            new = sample(new, options, generator)[:, None]
            yield new[:, 0]
            continue
        scores = steps.step(new)
        scores = penalised(scores, tokens, options.repetition_penalty)
        if index < options.min_new_tokens and len(ends):
            scores = scores.index_fill(-1, ends, NEVER)
        for callback in callbacks:
            scores = callback(tokens, scores)
        chosen = choose(scores, options, generator)
        if known is not None and index < known.shape[1]:
            chosen = torch.where(known[:, index] >= 0, known[:, index], chosen)
        if logs is not None:
            logs.append(scores.float().log_softmax(-1).gather(-1, chosen[:, None])[:, 0])
        yield chosen
        new = chosen[:, None]
        if keep:
            tokens = torch.cat([tokens, new], dim=1)


def decode(
    steps: Steps,
    prompt: Tensor,
    options: DecodingOptions,
    end: Sequence[int] = (),
    callbacks: Sequence[LogitsCallback] = (),
    stopped: Callable[[int, list[int]], bool] | None = None,
    check_every: int = 1,
    scored: bool = False,
) -> Decoded:
    """Runs a batch to its end; each sequence ends at an end token, where `stopped(row, tokens)`
    says so, or at the limit. `check_every` steps the tokens are looked at (8 or more on a GPU).
    `scored` sums the log-probabilities that `stream` gives."""
    b = prompt.shape[0]
    found: list[list[int]] = [[] for _ in range(b)]
    over = [False] * b
    sums = [0.0] * b
    waiting: list[Tensor] = []
    logs: list[Tensor] | None = [] if scored else None

    def take_in() -> None:
        values = torch.stack(logs).tolist() if logs else []
        for step, column in enumerate(torch.stack(waiting).tolist() if waiting else []):
            for row, token in enumerate(column):
                if not over[row]:
                    found[row].append(token)
                    if values:
                        sums[row] += values[step][row]
                    over[row] = token in end or bool(stopped and stopped(row, found[row]))
        waiting.clear()
        if logs is not None:
            logs.clear()

    for chosen in stream(steps, prompt, options, end, callbacks, logs=logs):
        waiting.append(chosen)
        if len(waiting) >= check_every:
            take_in()
            if all(over):
                break
    take_in()
    return Decoded(found, sums if scored else [], over)
