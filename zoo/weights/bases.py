"""Weights in layers: a file of what was trained, over the weights of the models that it grew on.

A stored model need not hold all of itself. Its config's `bases` say whose weights fill the rest:

    bases: {all: bert-stdlib}                                     LoRA, or a new head, on an encoder
    bases: {vision: clip-vit-large-14, text: vicuna-7b-v1.5}      an adapter between two models

The key is a module of the model ('all' is the model itself), the value a name for `zoo.load`.
A file of differences is added to the weights that `deltas` name, as Llama's licence once asked:

    deltas: {text: dir:llama-7b}
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from zoo.errors import ConfigError, WeightsError
from zoo.weights.derived import Summed
from zoo.weights.lazy import as_lazy
from zoo.weights.steps import Misfit

__all__ = ["covered", "layered", "subset", "summed"]

WHOLE = "all"


def _prefix(module: str) -> str:
    return "" if module == WHOLE else f"{module}."


def covered(name: str, bases: Mapping[str, Any]) -> bool:
    """Returns whether a tensor's name lies in a module that a base fills."""
    return any(name.startswith(_prefix(module)) for module in bases)


def layered(
    own: Mapping[str, Any],
    bases: Mapping[str, str],
    names: Collection[str],
    open_base: Callable[[str], Mapping[str, Any]],
) -> dict[str, Any]:
    """Returns name -> tensor of a model: its own, then those of its bases.

    Args:
        own: what the model's file holds; all of it is in the answer.
        bases: module -> name of a model.
        names: the model's tensors. What a base has beyond them is left out.
        open_base: gives the weights of a base by the base's own names.
    Raises: ConfigError for a base that fills nothing of the model.
    """
    found: dict[str, Any] = {}
    wanted = set(names) - set(own)
    for module, base in bases.items():
        prefix = _prefix(module)
        if not any(name.startswith(prefix) for name in names):
            raise ConfigError(f"bases.{module}: the model has no module of this name.")
        if not any(name.startswith(prefix) for name in wanted):
            continue  # the model holds all of it by now
        weights = open_base(base)
        found |= {prefix + name: weights[name] for name in weights if prefix + name in wanted}
    return {**found, **own}


def summed(
    own: Mapping[str, Any],
    deltas: Mapping[str, str],
    open_base: Callable[[str], Mapping[str, Any]],
) -> dict[str, Any]:
    """Returns name -> tensor: what a model's file holds, and to the modules of `deltas` the weights
    of the models named there added.

    Rows that a base lacks (of tokens that were added to its vocabulary) are what the file says.
    Raises: ConfigError for a module of which the file holds nothing, WeightsError for tensors that
    do not go together.
    """
    found = dict(own)
    for module, base in deltas.items():
        prefix = _prefix(module)
        names = [name for name in own if name.startswith(prefix)]
        if not names:
            raise ConfigError(f"deltas.{module}: the file holds nothing of such a module.")
        weights = open_base(base)
        for name in names:
            inner = name.removeprefix(prefix)
            if inner not in weights:
                raise WeightsError(f"deltas.{module}: {base} has no {inner} to add to.")
            try:
                found[name] = Summed(as_lazy(own[name]), as_lazy(weights[inner]))
            except Misfit as error:
                raise WeightsError(f"deltas.{module}: {inner} of {base} {error}.") from None
    return found


def subset(
    state: Mapping[str, Any], names: Collection[str], bases: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the tensors of these names; raises WeightsError when the bases do not hold the
    rest."""
    lost = [name for name in state if name not in names and not covered(name, bases)]
    if lost:
        raise WeightsError(
            f"{len(lost)} tensors would be stored nowhere (first: {lost[0]}); name the model that "
            "they are from in the config's bases, or store the whole model."
        )
    return {name: state[name] for name in state if name in names}
