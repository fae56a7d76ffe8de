"""Linear and embedding layers whose weights are made only when asked for.

PyTorch's own layers fill their weights in the constructor; a model that is about to be loaded
would pay for numbers
that nobody reads. Here construction allocates, `reset_parameters` fills.
"""

# b batch, n tokens, i inputs, o outputs

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.forms import Freezable
from zoo.nn.matmul import linear

__all__ = ["Embedding", "Linear", "fill_normal_"]


def fill_normal_(weight: Tensor, std: float) -> None:
    """Fills with a normal distribution cut at two standard deviations."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


class Linear(Freezable):
    """`x W^T + b`, weight (o i), bias (o); or the same by an inference form (zoo.nn.forms)."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, std: float = 0.02) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.register_parameter("bias", nn.Parameter(torch.empty(outputs)) if bias else None)
        self.std = std

    def reset_parameters(self) -> None:
        fill_normal_(self.weight, self.std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, activation: str = "linear") -> Tensor:  # ... i -> ... o
        """Returns the product, with an activation of `zoo.nn.matmul.FUSED` applied on the way."""
        if self.form is not None:
            return self.form(x, activation)
        own = self._parameters  # at one row, looking two attributes up would cost a tenth of it all
        if self.beside is not None and self.beside.stands_for(own["weight"], own["bias"]):
            return self.beside.product(x, activation)
        return linear(x, own["weight"], own["bias"], activation)  # type: ignore[arg-type]

    def rows(self, x: Tensor, first: int, last: int | None) -> Tensor:  # ... i -> ... last - first
        """Returns some of the outputs, where a fused matrix meets more than one input."""
        if self.form is not None:  # has no rows to take apart
            return Linear.forward(self, x)[..., first:last]
        bias = None if self.bias is None else self.bias[first:last]
        return linear(x, self.weight[first:last], bias)

    def extra_repr(self) -> str:
        outputs, inputs = self.weight.shape
        form = f", {type(self.form).__name__}" if self.form is not None else ""
        return f"{inputs}, {outputs}, bias={self.bias is not None}{form}"


class Embedding(nn.Module):
    """A table (count width) looked up by whole numbers."""

    def __init__(self, count: int, width: int, std: float = 0.02) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, width))
        self.std = std

    def reset_parameters(self) -> None:
        fill_normal_(self.weight, self.std)

    def forward(self, tokens: Tensor) -> Tensor:  # ... -> ... d
        return F.embedding(tokens, self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"
