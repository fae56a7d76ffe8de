"""Beam search: length penalty, patience, n-best, and groups kept apart (Vijayakumar et al.
2016)."""

# b prompts, k beams of a prompt, v vocabulary

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.generation.logits import NEVER, penalised
from zoo.generation.loop import Decoded
from zoo.generation.schema import DecodingOptions, LogitsCallback
from zoo.generation.steps import Steps

__all__ = ["beam_search"]


class Hypotheses:
    """The finished hypotheses of one prompt."""

    def __init__(self, options: DecodingOptions) -> None:
        self.options = options
        self.wanted = max(round(options.beams * options.patience), options.results)
        self.found: list[tuple[float, list[int], float]] = []  # score over length, tokens, score

    def add(self, tokens: list[int], score: float, ended: bool) -> None:
        """Keeps a hypothesis with its sum of log-probabilities, `ended` by an end token or not."""
        first = self.options.stopping == "first"
        if ended and first and len(self.found) >= self.wanted:
            return  # who came first stays
        length = len(tokens) - int(ended and not self.options.length_counts_end)
        self.found.append((score / self._norm(length), tokens, score))
        if not first:
            self.found.sort(key=lambda hypothesis: -hypothesis[0])
            del self.found[self.wanted :]

    def add_open(self, beams: list[tuple[list[int], float]]) -> None:
        """Keeps hypotheses (best first) that have not ended; where the first to end are wanted,
        only as many as beams lack."""
        for tokens, score in beams:
            if self.options.stopping == "first" and len(self.found) >= self.options.beams:
                break
            self.add(tokens, score, False)

    def complete(self, best_open: float, length: int) -> bool:
        """Returns whether the search is over: enough are found, and (unless the first are wanted)
        no open beam can still displace one."""
        if len(self.found) < self.wanted:
            return False
        if self.options.stopping == "first":
            return True
        return self.found[-1][0] >= best_open / self._norm(length)

    def best(self) -> list[tuple[float, list[int], float]]:
        """Returns the wanted results, best first."""
        ranked = sorted(self.found, key=lambda hypothesis: -hypothesis[0])
        return ranked[: self.options.results]

    def _norm(self, length: int) -> float:
        length = max(length, 1)
        base = length if self.options.length_norm == "power" else (5 + length) / 6
        return base**self.options.length_penalty


def beam_search(
    steps: Steps,
    prompt: Tensor,  # b n
    options: DecodingOptions,
    end: Sequence[int] = (),
    callbacks: Sequence[LogitsCallback] = (),
) -> list[Decoded]:
    """Returns, for every prompt, its `results` best hypotheses, best first."""
    b, k, device = prompt.shape[0], options.beams, prompt.device
    size = k // options.groups  # beams of a group
    steps.step(prompt[:, :-1]) if prompt.shape[1] > 1 else None
    steps.select(torch.arange(b, device=device).repeat_interleave(k))
    tokens = prompt.repeat_interleave(k, dim=0)  # b*k n
    start = tokens.shape[1]
    totals = torch.zeros(b, k, device=device)
    totals.view(b, options.groups, size)[:, :, 1:] = NEVER  # equal beams are one beam
    finished = [Hypotheses(options) for _ in range(b)]
    done = [False] * b
    for index in range(options.max_new_tokens):
        scores = steps.step(tokens[:, -1:]).float()
        scores = penalised(scores, tokens, options.repetition_penalty)
        if index < options.min_new_tokens and end:
            scores[:, list(end)] = NEVER
        for callback in callbacks:
            scores = callback(tokens, scores)
        logs = scores.log_softmax(-1).view(b, k, -1)
        rows, chosen, sums = _advance(logs, totals, options, end, tokens, start, finished, done)
        steps.select(rows)
        tokens = torch.cat([tokens[rows], chosen[:, None]], dim=1)
        totals = sums
        for prompt_index in range(b):
            if not done[prompt_index]:
                best = float(totals[prompt_index].max())
                done[prompt_index] = finished[prompt_index].complete(best, index + 1)
                if done[prompt_index] or index + 1 == options.max_new_tokens:
                    _leave_open(finished[prompt_index], totals, tokens, start, prompt_index)
        if all(done):
            break
    found = [hypotheses.best() for hypotheses in finished]
    return [
        Decoded(
            [tokens for _, tokens, _ in ranked],
            [score for _, _, score in ranked],
            [bool(tokens) and tokens[-1] in end for _, tokens, _ in ranked],
        )
        for ranked in found
    ]


def _leave_open(
    finished: Hypotheses, totals: Tensor, tokens: Tensor, start: int, prompt: int
) -> None:
    """Hands the open beams of a prompt whose search is over to its hypotheses."""
    if finished.options.stopping == "best" and len(finished.found) >= finished.wanted:
        return  # none of them could displace one
    k = totals.shape[1]
    sums = totals[prompt].tolist()
    order = sorted((beam for beam in range(k) if sums[beam] > NEVER), key=lambda beam: -sums[beam])
    finished.add_open([(tokens[prompt * k + beam, start:].tolist(), sums[beam]) for beam in order])


def _advance(
    logs: Tensor,  # b k v
    totals: Tensor,  # b k
    options: DecodingOptions,
    end: Sequence[int],
    tokens: Tensor,
    start: int,
    finished: list[Hypotheses],
    done: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns (row that each new beam continues, its token, its sum) and files what has ended."""
    b, k, v = logs.shape
    size = k // options.groups
    take = min(size * (1 + max(len(end), 1)), size * v)
    rows = torch.zeros(b, k, dtype=torch.long)
    chosen = torch.zeros(b, k, dtype=torch.long)
    sums = torch.full((b, k), NEVER)
    for group in range(options.groups):
        part = slice(group * size, (group + 1) * size)
        candidates = totals[:, part, None] + logs[:, part]
        if options.diversity and group:  # tokens that earlier groups chose at this step cost
            counts = torch.zeros(b, v).scatter_add(
                1, chosen[:, : group * size], torch.ones(b, group * size)
            )
            ranking = candidates - options.diversity * counts.to(logs.device)[:, None]
        else:
            ranking = candidates
        places = ranking.flatten(1).topk(take, dim=1).indices
        values = candidates.flatten(1).gather(1, places).tolist()
        for prompt, (row_places, row_values) in enumerate(
            zip(places.tolist(), values, strict=True)
        ):
            beams = 0
            for rank, (place, value) in enumerate(zip(row_places, row_values, strict=True)):
                beam, token = group * size + place // v, place % v
                source = prompt * k + beam
                if token in end:
                    among_best = rank < size or options.stopping == "first"
                    if among_best and not done[prompt] and value > NEVER:
                        finished[prompt].add([*tokens[source, start:].tolist(), token], value, True)
                    continue
                slot = group * size + beams
                rows[prompt, slot], chosen[prompt, slot] = source, token
                sums[prompt, slot] = value
                beams += 1
                if beams == size:
                    break
    device = logs.device
    return rows.flatten().to(device), chosen.flatten().to(device), sums.to(device)
