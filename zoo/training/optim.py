"""Optimisers, and which parameters of a model decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from zoo.errors import ConfigError
from zoo.nn.linear import Embedding
from zoo.nn.position import Position
from zoo.registry.suggest import hint
from zoo.training.schema import AdamWConfig, OptimConfig, TimmOptimConfig, matches

__all__ = ["adamw", "freeze", "parameter_groups", "timm"]


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Returns two groups of the parameters that learn: those with weight decay and those without.

    What decays is the `weight` of two or more dimensions of any layer but an embedding or a
    position table; so norms, biases, learned tokens and scales do not. `config.decay` and
    `config.no_decay` change that by name.
    """
    tables = (nn.Embedding, Embedding, Position)
    kept = {
        id(p) for m in model.modules() if isinstance(m, tables) for p in m.parameters(recurse=True)
    }
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.ndim >= 2 and name.rpartition(".")[2] == "weight"
        decays = (is_matrix and id(parameter) not in kept) or matches(name, config.decay)
        (decayed if decays and not matches(name, config.no_decay) else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay, "matrices": True},
        {"params": plain, "weight_decay": 0.0, "matrices": False},
    ]
    return [group for group in groups if group["params"]]


def freeze(model: nn.Module, trainable: list[str]) -> None:
    """Freezes every parameter that matches none of the patterns; raises ConfigError for a
    pattern that matches none."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in trainable:
        if not any(matches(name, [pattern]) for name in names):
            raise ConfigError(f"trainable: no parameter matches {pattern!r}.{hint(pattern, names)}")
    for name, parameter in model.named_parameters():
        if not matches(name, trainable):
            parameter.requires_grad_(False)


def adamw(config: AdamWConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Returns PyTorch's AdamW."""
    first, second = config.betas
    return torch.optim.AdamW(groups, lr=config.lr, betas=(first, second), eps=config.eps)


def timm(config: TimmOptimConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Returns one of timm's optimisers; raises ConfigError with the nearest name, or for an
    option it does not take."""
    from timm.optim import create_optimizer_v2, list_optimizers

    known = [str(name) for name in list_optimizers()]
    if config.algorithm not in known:
        raise ConfigError(
            f"optim.algorithm: timm has no optimiser {config.algorithm!r}."
            + hint(config.algorithm, known, "timm.optim.list_optimizers() names them.")
        )
    if "muon" in config.algorithm:  # made for hidden layers; tables and norms get its AdamW
        groups = [{**group, "use_fallback": not group["matrices"]} for group in groups]
    try:
        return create_optimizer_v2(
            groups, opt=config.algorithm, lr=config.lr, weight_decay=0.0, **config.options
        )
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"optim: {config.algorithm} cannot be made with options {config.options}: {reason}"
        ) from None
