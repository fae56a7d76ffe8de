"""Hold a module's tensors against stored ones before anything is read; say all that is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from zoo.errors import WeightsError
from zoo.weights.lazy import LazyTensor, as_lazy, describe, same_bits
from zoo.weights.map import MappedWeights

__all__ = ["Fit", "Slot", "complaint", "fit", "module_slots"]

SHOWN = 10  # names listed of each kind of problem


@dataclass
class Slot:
    """One tensor of a module, with all names and places that it has (several if it is tied)."""

    tensor: torch.Tensor
    names: list[str] = field(default_factory=list)
    places: list[tuple[nn.Module, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]

    def put(self, tensor: torch.Tensor) -> None:
        """Let every place hold `tensor`; a parameter keeps its settings and marks."""
        if isinstance(self.tensor, nn.Parameter):
            parameter = nn.Parameter(tensor, requires_grad=self.tensor.requires_grad)
            parameter.__dict__.update(self.tensor.__dict__)  # such as `no_weight_decay`
            tensor = parameter
        for module, key in self.places:
            held: dict[str, Any] = module._buffers
            if key in module._parameters:
                held = module._parameters
            held[key] = tensor


@dataclass
class Fit:
    """Which stored tensor goes where (`good`, by the slot's first name), and what is wrong."""

    good: dict[str, LazyTensor] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)

    @property
    def faults(self) -> int:
        """How many problems there are."""
        return len(self.missing) + len(self.unexpected) + len(self.wrong)


def module_slots(module: nn.Module) -> dict[str, Slot]:
    """The parameters and persistent buffers of `module` by their first name."""
    by_identity: dict[int, Slot] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        buffers = {
            key: tensor
            for key, tensor in part._buffers.items()
            if key not in part._non_persistent_buffers_set
        }
        for key, tensor in (*part._parameters.items(), *buffers.items()):
            if tensor is None:
                continue
            slot = by_identity.setdefault(id(tensor), Slot(tensor))
            slot.names.append(f"{path}.{key}" if path else key)
            slot.places.append((part, key))
    return {slot.name: slot for slot in by_identity.values()}


def fit(slots: Mapping[str, Slot], weights: Mapping[str, LazyTensor | torch.Tensor]) -> Fit:
    """Match names and compare shapes.

    Raises:
        WeightsError: names that are tied in the module have different values.
    """
    result = Fit()
    for slot in slots.values():
        given = [name for name in slot.names if name in weights]
        if not given:
            result.missing.append(slot.name)
            continue
        lazy, *others = (as_lazy(weights[name]) for name in given)
        if not all(same_bits(lazy, other) for other in others):
            raise WeightsError(
                f"{' and '.join(given)} differ in the file but are one tensor in the model; set "
                "its config to untied weights."
            )
        here = describe(tuple(slot.tensor.shape))
        floats = getattr(torch, lazy.dtype).is_floating_point, slot.tensor.is_floating_point()
        if lazy.shape != tuple(slot.tensor.shape):
            result.wrong[slot.name] = f"{describe(lazy.shape)} in the file, {here} in the model"
        elif floats[0] != floats[1]:
            wanted = str(slot.tensor.dtype).removeprefix("torch.")
            result.wrong[slot.name] = f"{lazy.dtype} in the file, {wanted} in the model"
        else:
            result.good[slot.name] = lazy
    known = {name for slot in slots.values() for name in slot.names}
    result.unexpected = [name for name in weights if name not in known]
    if isinstance(weights, MappedWeights):
        result.unexpected += weights.unmatched
    return result


def complaint(
    model: str,
    slots: Mapping[str, Slot],
    found: Fit,
    weights: Mapping[str, LazyTensor | torch.Tensor],
) -> str:
    """All that is wrong, at most ten names of a kind, each with what comes nearest to it."""
    counts = {
        "missing": len(found.missing),
        "unexpected": len(found.unexpected),
        "of wrong shape": len(found.wrong),
    }
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    missing = [
        f"{name} {describe(tuple(slots[name].tensor.shape))}{_why(name, found, weights)}"
        for name in found.missing[:SHOWN]
    ]
    unexpected = [
        name + _nearest(name, found.missing, "model") for name in found.unexpected[:SHOWN]
    ]
    wrong = [f"{name}: {what}" for name, what in list(found.wrong.items())[:SHOWN]]
    lines = [f"The weights do not fit {model} ({summary}); partial=True loads what fits."]
    for kind, shown in zip(counts, (missing, unexpected, wrong), strict=True):
        lines += [f"  {kind}: {line}" for line in shown]
        if counts[kind] > len(shown):
            lines.append(f"  {kind}: {counts[kind] - len(shown)} more")
    return "\n".join(lines)


def _why(name: str, found: Fit, weights: Mapping[str, LazyTensor | torch.Tensor]) -> str:
    if isinstance(weights, MappedWeights):
        if name in weights.problems:
            return f": {weights.problems[name]}"
        if origin := weights.origin(name):
            return f", in the file {' + '.join(origin)}"
    return _nearest(name, found.unexpected, "file")


def _nearest(name: str, candidates: Sequence[str], where: str) -> str:
    # Ten names against at most a few thousand: a comparison of names costs about 50 us.
    close = difflib.get_close_matches(name, candidates[:2000], n=1, cutoff=0.6)
    return f" (nearest in the {where}: {close[0]})" if close else ""
