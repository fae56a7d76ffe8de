"""Fine-tuning without touching the weights: what a config's `tuning` attaches to a model, and how
it goes into the weights in the end.

    model = zoo.load("bert-stdlib", "tuning=lora")    # attached; the outputs are the same
    model = zoo.merge(zoo.load("dir:runs/7"))         # trained; the same outputs, plain layers
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from zoo.nn.tuning.lora import LoRALinear
from zoo.registry import build

__all__ = ["attach_tuning", "is_tuned", "merge", "merged_state", "tuning_names"]


def attach_tuning(model: nn.Module) -> nn.Module:
    """Attaches what the configs of a model and of the models inside it ask for; returns it."""
    for part in list(model.modules()):
        tuning = getattr(getattr(part, "config", None), "tuning", None)
        if tuning is not None:
            build(tuning).attach(part)
    return model


def is_tuned(config: Any) -> bool:
    """Returns whether a config, or one inside it, asks for a tuning."""
    return untuned(config) != config


def tuning_names(model: nn.Module) -> frozenset[str]:
    """Returns the names of the parameters that a tuning added."""
    found = _tuned(model)
    return frozenset(f"{name}.{key}" for name in found for key in ("lora_a", "lora_b"))


def merge(model: Any) -> Any:
    """Puts the additions into the weights, in place, and returns the model: the same outputs up to
    rounding, plain layers, a config without tuning."""
    for name, part in _tuned(model).items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, part.merged())
    for part in model.modules():
        if dataclasses.is_dataclass(getattr(part, "config", None)):
            part.config = untuned(part.config)
    return model


def merged_state(model: Any) -> tuple[Any, dict[str, Tensor]]:
    """Returns (config, state dict) that `merge` would give, and leaves the model as it is."""
    state = model.state_dict()
    for name, part in _tuned(model).items():
        state[f"{name}.weight"] = part.merged_weight()
        del state[f"{name}.lora_a"], state[f"{name}.lora_b"]
    return untuned(model.config), state


def untuned(config: Any) -> Any:
    """Returns a config without the tunings that it, and the configs inside it, ask for."""
    changes = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "tuning":
            value = None
        elif dataclasses.is_dataclass(value):
            value = untuned(value)
        if value is not getattr(config, field.name):
            changes[field.name] = value
    return dataclasses.replace(config, **changes) if changes else config


def _tuned(model: nn.Module) -> dict[str, LoRALinear]:
    return {name: part for name, part in model.named_modules() if isinstance(part, LoRALinear)}


@torch.no_grad()
def reset_tuning(model: nn.Module) -> None:
    """Makes the additions new, so that they add nothing yet."""
    for part in _tuned(model).values():
        part.reset_tuning()
