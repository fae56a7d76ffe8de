"""From a prompt to codes, by either way of drawing. Known codes stay what they are, so priming,
inpainting, enlarging and continuing are one mechanism."""

# b pictures, n codes

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.generation.guidance import Guidance
from zoo.generation.loop import stream
from zoo.generation.masked import masked_options, masked_steps
from zoo.generation.schema import options as decoding_options
from zoo.models.generator.prompt import Condition
from zoo.models.generator.schema import DrawOptions
from zoo.models.generator.steps import FillSteps, code_steps

__all__ = ["UNKNOWN", "sample"]

UNKNOWN = -1


def sample(
    model: Any,
    known: Tensor,  # b n, UNKNOWN where a code is to be drawn
    condition: Condition,
    nothing: Condition | None,  # what guidance leads away from; None guides nothing
    wanted: DrawOptions,
    grid: tuple[int, ...] | None = None,
    critic: Callable[[Tensor, float], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Yields the codes (b n) as they come, UNKNOWN where none is there yet: after every code of a
    causal model, after every pass of another. The last ones are whole."""
    guidance = Guidance(
        scale=wanted.guidance, schedule=wanted.guidance_schedule, together=wanted.together
    )
    if not model.config.causal:
        steps = FillSteps(model, condition, nothing, guidance, grid)
        mask = model.mask_code
        start = torch.where(known == UNKNOWN, mask, known)
        options = masked_options(wanted.sampler, **wanted.masked())
        for codes in masked_steps(steps, start, mask, options, critic):
            yield torch.where(codes == mask, UNKNOWN, codes)
        return
    if grid is not None and tuple(grid) != model.config.shape:
        raise ConfigError(f"A model that writes code after code draws {model.config.shape} alone.")
    yield from _written(model, known, code_steps(model, condition, nothing, guidance), wanted)


def _written(model: Any, known: Tensor, steps: Any, wanted: DrawOptions) -> Iterator[Tensor]:
    given = (known != UNKNOWN).all(0).long().cumprod(0).sum()
    primed = min(int(given), known.shape[1] - 1)  # the last one is chosen, whatever it is
    options = decoding_options(
        max_new_tokens=known.shape[1] - primed,
        temperature=wanted.temperature,
        top_k=wanted.top_k,
        top_p=wanted.top_p,
        seed=wanted.seed,
    )
    codes = torch.full_like(known, UNKNOWN)
    codes[:, :primed] = known[:, :primed]
    chosen = stream(steps, known[:, :primed], options, known=known[:, primed:])
    for index, code in enumerate(chosen, primed):
        codes[:, index] = code
        yield codes
