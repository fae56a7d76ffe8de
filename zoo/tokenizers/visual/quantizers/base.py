"""What every quantizer is: maps into its space and out of it, a choice of codes in between."""

# ... any batch and grid, d channels of the encoder, w channels of the quantizer, o of the decoder

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from zoo.errors import DataError
from zoo.nn.linear import Linear
from zoo.tokenizers.visual.schema import QuantizerConfig

__all__ = ["Quantized", "Quantizer", "straight_through", "use_of"]


@dataclass
class Quantized:
    """What a quantizer makes of vectors."""

    ids: Tensor  # ... whole numbers (with a last axis for the steps of a residual quantizer)
    vectors: Tensor  # ... o, through which gradients reach the encoder
    losses: dict[str, Tensor] = field(default_factory=dict)  # scalars, weighted; in training only


class Quantizer(nn.Module):
    """The base. A subclass has `choose` and `codes_of`, both in its own space of w channels.

    Args:
        width: channels d that the encoder gives.
        out: channels o that the decoder takes; None without one.
        inner: channels w of the codes.
        map_in, map_out: whether a linear map leads there; None is where the widths differ.
        bias: whether those maps have one.
    """

    def __init__(
        self,
        config: QuantizerConfig,
        width: int,
        out: int | None,
        inner: int,
        *,
        map_in: bool | None = None,
        map_out: bool | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        self.size = config.codes
        if width != inner if map_in is None else map_in:
            self.project_in = Linear(width, inner, bias, std=width**-0.5)
        if out is not None and (inner != out if map_out is None else map_out):
            self.project_out = Linear(inner, out, bias, std=inner**-0.5)

    def forward(self, x: Tensor) -> Quantized:  # ... d
        """Raises nothing; gives the same codes in training and in evaluation unless it says so."""
        x = self.project_in(x) if hasattr(self, "project_in") else x
        ids, codes, losses = self.choose(x)
        return Quantized(ids, self._out(codes), losses)

    def lookup(self, ids: Tensor) -> Tensor:  # ... -> ... o
        """Returns the vectors of codes as the decoder takes them. Raises DataError for numbers
        that are no codes."""
        check_ids(ids, self.size)
        return self._out(self.codes_of(ids))

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Returns (ids ..., codes ... w, losses) of vectors ... w."""
        raise NotImplementedError

    def codes_of(self, ids: Tensor) -> Tensor:
        """Returns the codes ... w of ids ..."""
        raise NotImplementedError

    def anneal(self, share: float) -> None:
        """Sets what changes over a training, of which `share` (0 to 1) is done."""

    def _out(self, codes: Tensor) -> Tensor:
        return self.project_out(codes) if hasattr(self, "project_out") else codes


def straight_through(x: Tensor, code: Tensor) -> Tensor:
    """Returns the code, with the gradient going to x as if nothing had happened."""
    return x + (code - x).detach() if x.requires_grad else code


def check_ids(ids: Tensor, size: int) -> None:
    """Raises DataError unless ids are whole numbers in [0, size)."""
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise DataError(f"Codes are whole numbers, not {str(ids.dtype).removeprefix('torch.')}.")
    if ids.numel() and not ids.is_meta:
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= size:
            raise DataError(
                f"There are codes 0 to {size - 1}, and {low if low < 0 else high} is none of them."
            )


def in_chunks(
    x: Tensor, codes: int, score: Callable[[Tensor], Tensor], limit: int = 1 << 26
) -> Tensor:  # n w -> n
    """Returns `score(x).argmax(-1)` without holding more than `limit` scores at a time."""
    rows = max(1, limit // codes)
    return torch.cat([score(part).argmax(-1) for part in x.split(rows)])


def use_of(counts: Tensor) -> dict[str, float]:
    """Returns how evenly codes are used: the share used at all, and the perplexity, which is the
    number of codes if all were used alike."""
    total = counts.sum().clamp(min=1).double()
    share = counts.double() / total
    entropy = -(share * share.clamp(min=1e-12).log()).sum()
    return {
        "codes_used": float((counts > 0).double().mean()),
        "perplexity": float(entropy.exp()),
    }
