"""What a run must remember beyond the number of its step: weights, optimiser, average, opponent. In
and out.

All of it goes by names that do not depend on how the model is spread over processes.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from zoo.training.distributed import local
from zoo.training.ema import Average
from zoo.training.opponent import Opponent

__all__ = ["State", "export"]


MOVING = StateDictOptions(ignore_frozen_params=True)  # what is frozen is where the run starts from


class State:
    """The tensors of a run. Its methods are called by all processes together."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        decay: float | None,
        opponent: Opponent | None = None,
    ) -> None:
        self.module, self.optimizer, self.opponent = module, optimizer, opponent
        self.average = Average(module, decay) if decay is not None else None

    def tensors(self) -> dict[str, Any]:
        """Returns what a checkpoint holds; filled in place, it goes back by `restore`."""
        tensors: dict[str, Any] = {
            "model": get_model_state_dict(self.module, options=MOVING),
            "optim": get_optimizer_state_dict(self.module, self.optimizer),
        }
        if self.average is not None:
            tensors["average"] = self.average.values
        if self.opponent is not None:
            network, optimizer = self.opponent.network, self.opponent.optimizer
            tensors["opponent"] = {
                "model": get_model_state_dict(network),
                "optim": get_optimizer_state_dict(network, optimizer),
            }
        return tensors

    def restore(self, tensors: dict[str, Any]) -> None:
        """Takes up what `tensors` holds."""
        set_optimizer_state_dict(self.module, self.optimizer, tensors["optim"])
        # after the optimiser, which takes an empty step to make its state
        loose = StateDictOptions(strict=False)  # the names are those of `tensors`
        set_model_state_dict(self.module, tensors["model"], options=loose)
        if self.average is not None:
            for name, value in tensors["average"].items():
                local(self.average.values[name]).copy_(local(value))

        if self.opponent is not None:
            network, found = self.opponent.network, tensors["opponent"]
            set_optimizer_state_dict(network, self.opponent.optimizer, found["optim"])
            set_model_state_dict(network, found["model"])

    def averaged(self) -> AbstractContextManager[None]:
        """Puts the average into the model for a while, where one is kept."""
        return self.average.applied() if self.average is not None else nullcontext()

    def whole_weights(self) -> dict[str, Tensor]:
        """Returns the model's state dict as it is now, whole, on the CPU (in the main process)."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        found: dict[str, Any] = get_model_state_dict(self.module, options=options)
        return found


def export(
    model: nn.Module,
    weights: dict[str, Tensor],
    folder: Path,
    only: Collection[str] | None = None,
) -> None:
    """Writes whole weights in the stored layout, or some of them; a model without a zoo config
    gives its weights alone. Raises OSError and WeightsError; what was in the folder is then as it
    was."""
    from zoo.models.base import build_empty, save
    from zoo.weights.files import save_weights

    config = getattr(model, "config", None)
    if not hasattr(config, "zoo_kind"):
        save_weights(weights, folder / "model.safetensors")
        return
    empty = build_empty(config)
    empty.load_state_dict(weights, assign=True)
    save(empty, folder, only=only)
