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
from zoo.generation.schema import DecodingOptions
from zoo.generation.schema import options as decoding_options
from zoo.generation.speculative import ModelDrafter, Report, speculate
from zoo.models.generator.prompt import Condition
from zoo.models.generator.schema import DrawOptions
from zoo.models.generator.steps import FillSteps, code_steps

__all__ = ["UNKNOWN", "check_draft", "draft_codes", "sample", "writing_options"]

UNKNOWN = -1
Told = tuple[Condition, Condition | None]  # what is asked for, and what guidance leads away from


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
    guidance = _guidance(wanted)
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
    options = writing_options(wanted, known.shape[1] - primed)
    codes = torch.full_like(known, UNKNOWN)
    codes[:, :primed] = known[:, :primed]
    chosen = stream(steps, known[:, :primed], options, known=known[:, primed:])
    for index, code in enumerate(chosen, primed):
        codes[:, index] = code
        yield codes


def draft_codes(
    model: Any,
    told: Told,
    smaller: Any,
    its: Told,
    codes: Tensor,  # b n, all UNKNOWN
    wanted: DrawOptions,
    report: Report,
) -> Iterator[Tensor]:
    """Yields the codes (b n) after every picture, of which a smaller model, told the same in its
    own way, guesses what comes. Greedy ones are those of `sample`; others are drawn from the same
    distribution. What it gained is added to `report`."""
    guidance, options = _guidance(wanted), writing_options(wanted, codes.shape[1])
    for row in range(len(codes)):
        if wanted.seed is not None:
            options.seed = wanted.seed + row
        steps, guessing = (
            code_steps(who, asked.select(at), nothing and nothing.select(at), guidance)
            for at in [torch.tensor([row])]
            for who, (asked, nothing) in ((model, told), (smaller, its))
        )
        found, gained = speculate(steps, [], ModelDrafter(guessing, options), options)
        report.add(gained)
        codes[row] = torch.tensor(found.tokens[0])
        yield codes


def check_draft(model: Any, smaller: Any) -> None:
    """Raises ConfigError for a smaller model that cannot guess for the larger."""
    ours, theirs = model.config, getattr(smaller, "config", None)
    if not ours.causal:
        raise ConfigError(
            "draft: this model fills in masked codes; only code after code is guessed."
        )
    if theirs is None or theirs.zoo_kind != ours.zoo_kind or not theirs.causal:
        raise ConfigError("draft: only a model that writes code after code can guess for this one.")
    if (theirs.codebook, theirs.shape) != (ours.codebook, ours.shape):
        raise ConfigError(
            f"draft: it draws {theirs.shape} codes out of {theirs.codebook}, and this model "
            f"{ours.shape} out of {ours.codebook}; take one with the same visual tokenizer."
        )


def _guidance(wanted: DrawOptions) -> Guidance:
    return Guidance(
        scale=wanted.guidance, schedule=wanted.guidance_schedule, together=wanted.together
    )


def writing_options(wanted: DrawOptions, count: int) -> DecodingOptions:
    """Returns the options by which `count` codes are written one after the other."""
    names = ("temperature", "top_k", "top_p", "seed")
    return decoding_options({n: getattr(wanted, n) for n in names}, max_new_tokens=count)
