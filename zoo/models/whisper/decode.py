"""From the encoder's memory of windows to the best text of each: greedy, beams, or samples."""

# b windows, s positions of the encoder, n tokens, v vocabulary, d width

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.generation.beam import beam_search
from zoo.generation.loop import Decoded, decode
from zoo.generation.schema import DecodingOptions, LogitsCallback
from zoo.generation.speculative import ModelDrafter, speculate
from zoo.models.text.steps import Seq2SeqSteps
from zoo.models.whisper.draft import Draft
from zoo.models.whisper.options import SpeechOptions
from zoo.models.whisper.rules import rules_of

__all__ = ["Hypothesis", "compression", "decode_windows", "detect"]


@dataclass
class Hypothesis:
    """What was heard in a window."""

    tokens: list[int]  # text and times, without the prompt and the end
    text: str
    log_probability: float  # mean over the tokens and the end
    no_speech: float  # probability that nothing is said
    compression: float  # bytes of the text over bytes of it compressed
    temperature: float


def compression(text: str) -> float:
    """Returns how many times smaller zlib makes a text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


class _WindowSteps(Seq2SeqSteps):
    """Windows being transcribed. Notes the probability of no speech where the prompt starts, and
    reads the prompt of equal rows once."""

    def __init__(self, model: Any, memory: Tensor, start: int, copies: int = 1) -> None:
        super().__init__(model, None, memory=memory)
        self.start, self.copies = start, copies
        self.no_speech: list[float] = []

    def step(self, tokens: Tensor, every: bool = False) -> Tensor:
        if self.no_speech:
            return super().step(tokens, every)
        first = self.cache.length
        copies = tokens.shape[0] // self.memory.shape[0] if self.memory is not None else 1
        out = self.model.decode(tokens[::copies], self.memory, cache=self.cache, last=not every)
        place = self.start - first
        if place < tokens.shape[1]:
            scores = self.model.head(out.hidden[:, place : place + 1], self.model.embedding)
            none = self.model.config.layout.no_speech
            self.no_speech = scores[:, 0].float().softmax(-1)[:, none].tolist()
        self.memory = None
        logits = out.logits if every else out.logits[:, -1]
        if copies > 1:
            rows = torch.arange(len(logits), device=logits.device).repeat_interleave(copies)
            self.cache.select(rows)
            logits = logits[rows]
        return logits


def decode_windows(
    model: Any,
    memory: Tensor,  # b s d
    prompts: list[list[int]],  # of one length
    options: SpeechOptions,
    temperature: float = 0.0,
    seed: int | None = None,
    draft: Draft | None = None,
) -> list[Hypothesis]:
    """Returns the best hypothesis of each window; a draft guesses what greedy decoding writes, one
    window after another, and changes none of it."""
    config, layout = model.config, model.config.layout
    length, begin = config.decoder.length, len(prompts[0])
    drawn = options.best_of if temperature > 0 else 1
    beams = options.beams if temperature == 0 else 1
    wanted = DecodingOptions(
        max_new_tokens=min(options.max_new_tokens or length // 2, length - begin + 1),
        temperature=temperature,
        seed=seed,
        beams=beams,
        patience=options.patience,
        stopping="first",
        length_counts_end=False,
        length_norm="power" if options.length_penalty is None else "gnmt",
        length_penalty=1.0 if options.length_penalty is None else options.length_penalty,
    )
    step = config.sound.seconds / config.sound.positions
    rules = rules_of(layout, model.tokenizer, options, begin, step)
    place = prompts[0].index(layout.start)
    if draft is not None and temperature == 0:
        return [
            _drafted(model, memory[i : i + 1], prompts[i], place, wanted, rules, draft, i)
            for i in range(len(prompts))
        ]
    steps = _WindowSteps(model, memory, place)
    prompt = torch.tensor(prompts, device=memory.device)
    if beams > 1:
        found = beam_search(steps, prompt, wanted, [layout.end], rules)
        best = [(one.tokens[0], one.scores[0]) for one in found]
    else:
        rows = prompt.repeat_interleave(drawn, dim=0)
        decoded = decode(steps, rows, wanted, [layout.end], rules, scored=True)
        best = [_best(decoded, i * drawn, drawn, options, layout.end) for i in range(len(prompts))]
    return [
        _hypothesis(model, tokens, score, none, temperature)
        for (tokens, score), none in zip(best, steps.no_speech, strict=True)
    ]


def _drafted(
    model: Any,
    memory: Tensor,  # 1 s d
    prompt: list[int],
    place: int,
    wanted: DecodingOptions,
    rules: list[LogitsCallback],
    draft: Draft,
    row: int,
) -> Hypothesis:
    steps = _WindowSteps(model, memory, place)
    guessing = Seq2SeqSteps(draft.model, None, memory=draft.memory[row : row + 1])
    drafter = ModelDrafter(guessing, wanted, callbacks=rules)
    end = [model.config.layout.end]
    decoded, report = speculate(steps, prompt, drafter, wanted, end, callbacks=rules, scored=True)
    draft.report.add(report)
    return _hypothesis(model, decoded.tokens[0], decoded.scores[0], steps.no_speech[0], 0.0)


def _best(
    decoded: Decoded, first: int, count: int, options: SpeechOptions, end: int
) -> tuple[list[int], float]:
    """Returns (tokens, score) of the best of `count` samples, ranked as beams are."""

    def rank(row: int) -> float:
        length = max(sum(token != end for token in decoded.tokens[row]), 1)
        power = options.length_penalty
        return decoded.scores[row] / (length if power is None else ((5 + length) / 6) ** power)

    row = max(range(first, first + count), key=rank)
    return decoded.tokens[row], decoded.scores[row]


def _hypothesis(
    model: Any, tokens: list[int], score: float, no_speech: float, temperature: float
) -> Hypothesis:
    layout = model.config.layout
    tokens = [token for token in tokens if token != layout.end]
    text = model.text_of(tokens).strip()
    mean = score / (len(tokens) + 1)
    return Hypothesis(tokens, text, mean, no_speech, compression(text), temperature)


def detect(model: Any, memory: Tensor) -> list[dict[str, float]]:  # b s d
    """Returns, for each window, the probability of every language by its code, likeliest first."""
    layout = model.config.layout
    start = torch.full((memory.shape[0], 1), layout.start, device=memory.device)
    scores = model.decode(start, memory).logits[:, 0]
    first = layout.first_language
    shares = scores[:, first : first + layout.languages].float().softmax(-1).tolist()
    found = [dict(zip(layout.codes, row, strict=True)) for row in shares]
    return [dict(sorted(one.items(), key=lambda pair: -pair[1])) for one in found]
