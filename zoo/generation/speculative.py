"""Speculative decoding: guess several tokens cheaply, check them in one pass of the model.

The guesses come from a smaller model (Leviathan et al. 2022, arXiv 2211.17192) or from the text
itself (prompt look-up); both are checked by one `verify`. Greedy decoding gives token for token
what plain decoding gives; sampling draws from exactly the same distribution. Callbacks on the
scores see, at every guess, the text before it, as they would have step by step.
"""

# n guesses, v vocabulary; one sequence at a time

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.generation.logits import likeliest, probabilities
from zoo.generation.loop import Decoded, generator_of
from zoo.generation.schema import DecodingOptions, LogitsCallback
from zoo.generation.steps import Steps

__all__ = ["Drafter", "ModelDrafter", "PromptLookup", "Report", "speculate", "verify"]

FEW = 5  # guesses: with the token before them a pass of six rows, in bf16 as cheap as one


class Drafter(Protocol):
    """Who guesses."""

    def guess(self, tokens: list[int], count: int) -> tuple[list[int], Tensor | None]:
        """Returns up to `count` tokens that may follow, and the distributions (n v) that they were
        drawn from; None when each guess was certain."""


class PromptLookup:
    """Guesses that what followed the last few tokens earlier follows them again: the longest run of
    tokens that was there before, where it was last."""

    def __init__(self, longest: int = 3, shortest: int = 1) -> None:
        self.sizes = range(longest, shortest - 1, -1)
        self.seen: list[int] = []
        self.places: dict[tuple[int, ...], int] = {}  # a run of tokens -> where what follows began

    def guess(self, tokens: list[int], count: int) -> tuple[list[int], None]:
        self._read(tokens)
        for size in self.sizes:
            place = self.places.get(tuple(tokens[-size:])) if size < len(tokens) else None
            if place is None:
                continue
            guesses = tokens[place : place + count]
            while len(guesses) < count:  # what goes round in a circle goes on doing so
                guesses += guesses[: count - len(guesses)]
            return guesses, None
        return [], None

    def _read(self, tokens: list[int]) -> None:
        """Notes every run that has something after it, each once."""
        if self.seen != tokens[: len(self.seen)]:
            self.seen, self.places = [], {}
        for place in range(max(len(self.seen), 1), len(tokens)):
            for size in self.sizes:
                if size <= place:
                    self.places[tuple(tokens[place - size : place])] = place
        self.seen = list(tokens)


class ModelDrafter:
    """Guesses with a smaller model, whose cache follows what was accepted."""

    def __init__(
        self,
        steps: Steps,
        options: DecodingOptions,
        generator: torch.Generator | None = None,
        callbacks: Sequence[LogitsCallback] = (),
    ) -> None:
        if generator is None and options.seed is not None:
            # draws of its own: those that `verify` makes must not depend on them
            generator = torch.Generator().manual_seed(options.seed + 1)
        self.steps, self.options, self.generator = steps, options, generator
        self.callbacks = callbacks  # on its scores: what may not be written need not be guessed
        self.seen: list[int] = []  # tokens in the draft's cache

    def guess(self, tokens: list[int], count: int) -> tuple[list[int], Tensor | None]:
        same = 0
        for ours, theirs in zip(self.seen, tokens[:-1], strict=False):
            if ours != theirs:
                break
            same += 1
        if len(self.seen) > same:
            self.steps.rewind(len(self.seen) - same)
        new, guesses, drawn = tokens[same:], [], []
        self.seen = list(tokens)
        for _ in range(count):
            scores = self.steps.step(ids(new, self.steps.device))
            scores = called(self.callbacks, self.seen, scores)
            distribution = probabilities(scores, self.options)[0]
            token = _draw(distribution, self.generator)
            guesses.append(token)
            drawn.append(distribution)
            new = [token]
            self.seen.append(token)
        self.seen.pop()  # the last guess was never an input
        return guesses, torch.stack(drawn) if self.options.temperature else None


def called(callbacks: Sequence[LogitsCallback], tokens: list[int], scores: Tensor) -> Tensor:
    """Returns the scores (1 v) of what follows the tokens, after the callbacks."""
    if callbacks:
        before = ids(tokens, scores.device)
        for callback in callbacks:
            scores = callback(before, scores)
    return scores


@dataclass
class Report:
    """How it went."""

    guessed: int = 0
    accepted: int = 0
    passes: int = 0
    seconds: float = 0.0
    plain_seconds: float | None = None  # of one plain step, measured on the way
    gave_up: bool = False  # guessing was slower and was stopped
    guessing_seconds: float = 0.0  # of all passes with guesses, the drafter's work among it
    guessing_tokens: int = 0  # that those passes gave

    def add(self, other: Report) -> None:
        """Counts another sequence's as well; times of plain steps are the fastest's."""
        for name in ("guessed", "accepted", "passes", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.guessing_seconds += other.guessing_seconds
        self.guessing_tokens += other.guessing_tokens
        self.gave_up = self.gave_up or other.gave_up
        known = [t for t in (self.plain_seconds, other.plain_seconds) if t is not None]
        self.plain_seconds = min(known, default=None)

    @property
    def acceptance(self) -> float:
        """Share of guesses that were right."""
        return self.accepted / self.guessed if self.guessed else 0.0


def ids(tokens: Sequence[int], device: torch.device) -> Tensor:
    """Returns one sequence as steps take it (1 n); what draws begins with none."""
    return torch.tensor([list(tokens)], dtype=torch.long, device=device)


def _draw(distribution: Tensor, generator: torch.Generator | None) -> int:
    return int(torch.multinomial(distribution, 1, generator=generator))


def verify(
    wanted: Tensor,  # n+1 v, the model's distributions after the last token and after each guess
    guesses: list[int],
    drawn: Tensor | None,  # n v, the drafter's
    generator: torch.Generator | None,
) -> list[int]:
    """Returns the accepted guesses and one token more: a guess is kept with min(1, p/q), the first
    refused one is replaced by a draw from max(p - q, 0), and after the last one p is drawn from."""
    taken: list[int] = []
    for index, guess in enumerate(guesses):
        p = wanted[index]
        q = drawn[index].to(p.device) if drawn is not None else None
        ratio = float(p[guess] if q is None else p[guess] / q[guess])
        if ratio >= 1 or float(torch.rand((), generator=generator, device=p.device)) < ratio:
            taken.append(guess)
            continue
        rest = p.clone()
        if q is None:
            rest[guess] = 0
        else:
            rest = (p - q).clamp(min=0)
        return [*taken, _draw(rest / rest.sum(), generator)]
    return [*taken, _draw(wanted[len(guesses)], generator)]


def _agreed(best: list[int], guesses: list[int]) -> list[int]:
    """What `verify` gives where all probability is on the best tokens (n+1)."""
    right = 0
    while right < len(guesses) and guesses[right] == best[right]:
        right += 1
    return best[: right + 1]


def _called_while_right(
    callbacks: Sequence[LogitsCallback], tokens: list[int], scores: Tensor, guesses: list[int]
) -> Tensor:  # n+1 v -> k v
    """Returns the scores after the callbacks, up to the first guess that is not the best token:
    nothing after it is asked for."""
    found = []
    for place, row in enumerate(scores):
        found.append(called(callbacks, [*tokens, *guesses[:place]], row[None]))
        if place < len(guesses) and int(found[-1].float().argmax()) != guesses[place]:
            break
    return torch.cat(found)


def speculate(
    steps: Steps,
    prompt: Sequence[int],
    drafter: Drafter,
    options: DecodingOptions,
    end: Sequence[int] = (),
    count: int = 16,
    patience: int = 4,
    read: int = 0,
    callbacks: Sequence[LogitsCallback] = (),
    scored: bool = False,
) -> tuple[Decoded, Report]:
    """Decodes one sequence with guesses of up to `count` tokens, over any `Steps` of batch 1: a
    decoder, one that reads an encoder (its prompt is the start token), codes of a picture.
    `read` of the prompt's tokens are in `steps` already. Guesses are few at first, for a pass over
    few costs what a plain step does, and twice as many after each pass that was right throughout.

    After `patience` passes, guessing stops when it costs more per token than a plain step does; not
    where a seed has to draw the same again, whatever the machine is doing.
    `callbacks` change the scores and `scored` sums the log-probabilities, as in `loop.decode`.

    Raises: ConfigError for callbacks beside a temperature.
    """
    if callbacks and options.temperature:
        raise ConfigError("Guesses are checked with callbacks only where decoding is greedy.")
    generator = generator_of(options.seed, steps.device)
    tokens, start = list(prompt), len(prompt)
    report, new, size = Report(), list(prompt[read:]), min(FEW, count)
    judged = not options.temperature or options.seed is None
    began = time.perf_counter()
    done, total = False, 0.0
    while not done and len(tokens) - start < options.max_new_tokens:
        room = options.max_new_tokens - (len(tokens) - start) - 1
        guesses: list[int] = []
        drawn = None
        before = time.process_time()  # what others do to the machine is not the drafter's fault
        # after the prompt comes one plain pass: what guessing must be cheaper than
        if not report.gave_up and room > 0 and report.passes > 1:
            guesses, drawn = drafter.guess(tokens, min(size, room))
        scores = steps.step(ids([*new, *guesses], steps.device), every=bool(guesses))[0]
        scores = scores[-len(guesses) - 1 :] if guesses else scores[None]
        if callbacks:
            scores = _called_while_right(callbacks, tokens, scores, guesses)
        if options.temperature:
            taken = verify(probabilities(scores, options), guesses, drawn, generator)
        else:
            taken = _agreed(likeliest(scores).tolist(), guesses)
        logs: list[float] = []
        if scored:
            rows = scores[: len(taken)].float().log_softmax(-1)
            logs = rows.gather(-1, ids(taken, rows.device).T)[:, 0].tolist()
        accepted = len(taken) - 1
        if guesses:
            size = min(2 * size if accepted == len(guesses) else FEW, count)
        if accepted < len(guesses):
            steps.rewind(len(guesses) - accepted)
        report.passes += 1
        report.guessed += len(guesses)
        report.accepted += accepted
        spent = time.process_time() - before
        if judged and len(new) == 1:
            _judge(report, spent, len(guesses), accepted, patience)
        for index, token in enumerate(taken):
            tokens.append(token)
            total += logs[index] if scored else 0.0
            done = token in end
            if done:
                break
        new = tokens[-1:]
    report.seconds = time.perf_counter() - began
    return Decoded([tokens[start:]], [total] if scored else [], [done]), report


def _judge(report: Report, spent: float, guessed: int, accepted: int, patience: int) -> None:
    """Keeps the cost of a plain step and gives guessing up when it is dearer per token."""
    if guessed == 0:
        known = report.plain_seconds
        report.plain_seconds = spent if known is None else min(known, spent)
        return
    report.guessing_seconds += spent
    report.guessing_tokens += accepted + 1
    if report.plain_seconds is not None and report.passes >= patience:
        each = report.guessing_seconds / report.guessing_tokens
        report.gave_up = each > 1.25 * report.plain_seconds
