"""Low-rank additions to linear layers (Hu et al. 2021, arXiv 2106.09685): attached to any model by
names, trained alone, stored alone, and added into the weights when they shall cost nothing more.

    model = zoo.load("bert-stdlib", "tuning=lora")            # attached: the outputs are the same
    zoo train experiment=bert_finetune model.tuning=lora 'trainable=["*.lora_*", "head.*"]'
    plain = zoo.merge(model)                                  # the same outputs, no additions left
"""

# ... rows, i inputs, o outputs, r rank

from __future__ import annotations

import fnmatch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.nn.linear import Linear
from zoo.nn.matmul import activated, linear
from zoo.nn.tuning.schema import LoRAConfig
from zoo.registry.suggest import hint

__all__ = ["LoRA", "LoRALinear"]


class LoRALinear(Linear):
    """`x (W + s B A)^T + b` with A (r i) and B (o r); B starts at zero, so nothing changes at
    first. The names of W and b are those of the layer that it replaces."""

    def __init__(self, plain: Linear, config: LoRAConfig) -> None:
        nn.Module.__init__(self)
        outputs, inputs = plain.weight.shape
        self.weight, self.std = plain.weight, plain.std
        self.register_parameter("bias", plain.bias)
        self.lora_a = nn.Parameter(self.weight.new_empty(config.rank, inputs))
        self.lora_b = nn.Parameter(self.weight.new_empty(outputs, config.rank))
        self.factor, self.dropout = config.alpha / config.rank, config.dropout

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.reset_tuning()

    def reset_tuning(self) -> None:
        """Fills the additions alone, so that they add nothing yet."""
        nn.init.normal_(self.lora_a, std=self.weight.shape[1] ** -0.5)
        nn.init.zeros_(self.lora_b)

    def forward(self, x: Tensor, activation: str = "linear") -> Tensor:  # ... i -> ... o
        return activated(super().forward(x) + self._addition(x, self.lora_b), activation)

    def rows(self, x: Tensor, first: int, last: int | None) -> Tensor:
        return super().rows(x, first, last) + self._addition(x, self.lora_b[first:last])

    def _addition(self, x: Tensor, b: Tensor) -> Tensor:
        low = linear(F.dropout(x, self.dropout, self.training), self.lora_a)  # ... r
        return self.factor * linear(low, b)

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """Returns W + s B A (o i), computed in float32 or wider, in the dtype of W. Raises
        ConfigError where W is in int8."""
        self.thaw()
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        added = self.factor * (self.lora_b.to(wide) @ self.lora_a.to(wide))
        return (self.weight.to(wide) + added).to(self.weight.dtype)

    def merged(self) -> Linear:
        """Returns a plain layer that gives the same."""
        plain = Linear.__new__(Linear)
        nn.Module.__init__(plain)
        plain.weight, plain.std = nn.Parameter(self.merged_weight()), self.std
        plain.register_parameter("bias", self.bias)
        return plain


class LoRA:
    """The tuning `lora`: which layers of a model get the additions."""

    def __init__(self, config: LoRAConfig) -> None:
        self.config = config

    def attach(self, model: nn.Module) -> None:
        """Replaces the chosen linear layers of a model; raises ConfigError for a pattern that
        chooses none."""
        plain = {name: part for name, part in model.named_modules() if type(part) is Linear}
        for pattern in self.config.on:
            if not fnmatch.filter(plain, pattern):
                known = hint(pattern, plain, f"There are {', '.join(list(plain)[:6])}, ….")
                raise ConfigError(f"tuning.on: no linear layer matches {pattern!r}.{known}")
        for name, part in plain.items():
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.config.on):
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, LoRALinear(part, self.config))
