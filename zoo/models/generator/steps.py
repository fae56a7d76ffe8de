"""What decoding sees of a model that draws."""

# b sequences, n codes, v codebook

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.generation.guidance import Guidance, GuidedPair, GuidedTogether
from zoo.generation.logits import guided
from zoo.generation.steps import Steps
from zoo.models.generator.prompt import Condition
from zoo.nn.cache import Cache, DynamicCache

__all__ = ["CodeSteps", "FillSteps", "code_steps"]


class CodeSteps(Steps):
    """A model that writes codes one after the other; the first step may take none."""

    def __init__(self, model: Any, condition: Condition, cache: Cache | None = None) -> None:
        self.model, self.condition = model, condition
        self.device = next(model.parameters()).device
        self.cache = cache if cache is not None else DynamicCache()

    def step(self, tokens: Tensor, every: bool = False) -> Tensor:
        hidden = self.model.run(tokens, self.condition, cache=self.cache)
        logits = self.model.read(hidden if every else hidden[:, -1:])
        return logits if every else logits[:, -1]

    def select(self, rows: Tensor) -> None:
        self.cache.select(rows)
        self.condition = self.condition.select(rows)

    def rewind(self, count: int) -> None:
        self.cache.rewind(self.cache.length - count)


def code_steps(
    model: Any, condition: Condition, nothing: Condition | None, guidance: Guidance
) -> Steps:
    """Returns steps guided away from `nothing`; both in one pass, or one after the other."""
    if nothing is None or guidance.scale == 1.0:
        return CodeSteps(model, condition)
    if guidance.together:
        return GuidedTogether(CodeSteps(model, condition.join(nothing)), guidance.scale)
    return GuidedPair(CodeSteps(model, condition), CodeSteps(model, nothing), guidance.scale)


class FillSteps:
    """A model that fills masked codes in: what `zoo.generation.masked` asks for scores."""

    def __init__(
        self,
        model: Any,
        condition: Condition,
        nothing: Condition | None,
        guidance: Guidance,
        grid: tuple[int, ...] | None = None,
    ) -> None:
        self.model, self.guidance, self.grid = model, guidance, grid
        self.guided = nothing is not None and guidance.scale != 1.0
        self.condition, self.nothing = condition, nothing
        if self.guided and guidance.together:
            assert nothing is not None
            self.both = condition.join(nothing)

    def __call__(self, codes: Tensor, time: float) -> Tensor:  # b n -> b n v
        scale = self.guidance.at(time)
        if not self.guided or scale == 1.0:
            return self._score(codes, self.condition)
        if self.guidance.together:
            asked, free = self._score(torch.cat([codes, codes]), self.both).chunk(2)
        else:
            assert self.nothing is not None
            asked, free = self._score(codes, self.condition), self._score(codes, self.nothing)
        return guided(asked, free, scale)

    def _score(self, codes: Tensor, condition: Condition) -> Tensor:
        return self.model.score(codes, condition, grid=self.grid).logits
