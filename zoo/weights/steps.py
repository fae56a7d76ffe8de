"""What happens to a tensor between its public layout and ours; every step knows its inverse.

`forward` turns theirs into ours, `backward` ours into theirs, and the two `*_shape` methods say the
same of shapes alone, so that a misfit is found before anything is read. Nothing here imports torch.

h heads, k key/value heads, e head width, d model width
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = [
    "Add",
    "FromHeadGroups",
    "HalfSplit",
    "Inverse",
    "Leading",
    "Misfit",
    "OnFirst",
    "Reorder",
    "Reshape",
    "Scale",
    "Squeeze",
    "Step",
    "Transpose",
]

Shape = tuple[int, ...]


class Misfit(Exception):
    """A shape that a step cannot take; the map turns it into an error that names the tensor."""


class Step:
    """One reversible change of layout. `copies` says whether the result has memory of its own, and
    `views` whether it can do without if it need not be contiguous."""

    copies = True
    views = False

    def forward_shape(self, shape: Shape) -> Shape:
        """Our shape of a tensor that has `shape` in the public layout. Raises Misfit."""
        return shape

    def backward_shape(self, shape: Shape) -> Shape:
        """The public shape of a tensor that has `shape` here. Raises Misfit."""
        return shape

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Theirs to ours."""
        raise NotImplementedError

    def backward(self, tensor: torch.Tensor) -> torch.Tensor:
        """Ours to theirs."""
        raise NotImplementedError


class Transpose(Step):
    """Swap two dimensions, e.g. a GPT-2 `Conv1D` (in, out) that is our linear layer (out, in)."""

    views = True

    def __init__(self, first: int = 0, second: int = 1) -> None:
        self.first, self.second = first, second

    def forward_shape(self, shape: Shape) -> Shape:
        if len(shape) <= max(self.first, self.second):
            raise Misfit(f"has no dimension {max(self.first, self.second)} to transpose")
        swapped = list(shape)
        swapped[self.first], swapped[self.second] = swapped[self.second], swapped[self.first]
        return tuple(swapped)

    backward_shape = forward_shape

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.transpose(self.first, self.second)

    backward = forward


class Reshape(Step):
    """The same values in the same order under another shape, e.g. (d, h, e) as (d, h * e)."""

    copies = False

    def __init__(self, theirs: Shape, ours: Shape) -> None:
        self.theirs, self.ours = tuple(theirs), tuple(ours)
        assert math.prod(theirs) == math.prod(ours), (theirs, ours)

    def forward_shape(self, shape: Shape) -> Shape:
        if shape != self.theirs:
            raise Misfit(f"should be {self.theirs}")
        return self.ours

    def backward_shape(self, shape: Shape) -> Shape:
        if shape != self.ours:
            raise Misfit(f"should be {self.ours}")
        return self.theirs

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.reshape(self.ours)

    def backward(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.reshape(self.theirs)


class Squeeze(Step):
    """Drop dimensions of size 1, given as positions in the public layout: a 1x1 convolution
    (out, in, 1, 1) is a linear layer (out, in) after `Squeeze(2, 3)`."""

    copies = False

    def __init__(self, *dims: int) -> None:
        assert dims and all(dim >= 0 for dim in dims), "count dimensions from the front"
        self.dims = sorted(dims)

    def forward_shape(self, shape: Shape) -> Shape:
        if self.dims[-1] >= len(shape) or any(shape[dim] != 1 for dim in self.dims):
            raise Misfit(f"should have size 1 in dimension {', '.join(map(str, self.dims))}")
        return tuple(size for dim, size in enumerate(shape) if dim not in self.dims)

    def backward_shape(self, shape: Shape) -> Shape:
        full = list(shape)
        for dim in self.dims:
            if dim > len(full):
                raise Misfit(f"has too few dimensions for a dimension {dim}")
            full.insert(dim, 1)
        return tuple(full)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.reshape(self.forward_shape(tuple(tensor.shape)))

    def backward(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.reshape(self.backward_shape(tuple(tensor.shape)))


class Leading(Step):
    """The first `rows` of a table whose others no computation reads; export writes zeros there."""

    copies = False

    def __init__(self, rows: int, total: int) -> None:
        assert 0 < rows <= total
        self.rows, self.total = rows, total

    def forward_shape(self, shape: Shape) -> Shape:
        if not shape or shape[0] != self.total:
            raise Misfit(f"should have {self.total} rows")
        return (self.rows, *shape[1:])

    def backward_shape(self, shape: Shape) -> Shape:
        if not shape or shape[0] != self.rows:
            raise Misfit(f"should have {self.rows} rows")
        return (self.total, *shape[1:])

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor[: self.rows]

    def backward(self, tensor: torch.Tensor) -> torch.Tensor:
        whole = tensor.new_zeros(self.total, *tensor.shape[1:])
        whole[: self.rows] = tensor
        return whole


class Reorder(Step):
    """Blocks of rows in another order, e.g. the gate of a gated layer that is stored value | gate
    and is gate | value here: `Reorder((f, f), (1, 0))`."""

    def __init__(self, sizes: Shape, order: tuple[int, ...]) -> None:
        assert sorted(order) == [*range(len(sizes))], (sizes, order)
        self.sizes, self.order = tuple(sizes), tuple(order)

    def forward_shape(self, shape: Shape) -> Shape:
        if not shape or shape[0] != sum(self.sizes):
            raise Misfit(f"should have {sum(self.sizes)} rows")
        return shape

    backward_shape = forward_shape

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        import torch

        blocks = tensor.split(self.sizes)
        return torch.cat([blocks[index] for index in self.order])

    def backward(self, tensor: torch.Tensor) -> torch.Tensor:
        import torch

        blocks = tensor.split([self.sizes[index] for index in self.order])
        return torch.cat([blocks[self.order.index(index)] for index in range(len(self.sizes))])


class HalfSplit(Step):
    """Rows of a query or key projection whose rotary pairs are neighbours (0 1 | 2 3 | ...), as
    GPT-J and Meta's Llama files have them, to ours: all first members, then all second members.

    `rotary` is how many of the `head_dim` rows of a head take part (all by default). Takes
    weights (h * e, d) and biases (h * e).
    """

    def __init__(self, heads: int, head_dim: int, rotary: int | None = None) -> None:
        self.heads, self.head_dim = heads, head_dim
        self.rotary = head_dim if rotary is None else rotary
        assert 0 < self.rotary <= head_dim and self.rotary % 2 == 0

    def forward_shape(self, shape: Shape) -> Shape:
        if not shape or shape[0] != self.heads * self.head_dim:
            raise Misfit(f"should have {self.heads} x {self.head_dim} rows")
        return shape

    backward_shape = forward_shape

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._permute(tensor, (self.rotary // 2, 2))

    def backward(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._permute(tensor, (2, self.rotary // 2))

    def _permute(self, tensor: torch.Tensor, pairs: tuple[int, int]) -> torch.Tensor:
        rest = tensor.shape[1:]
        result = tensor.clone().view(self.heads, self.head_dim, *rest)
        turned = result[:, : self.rotary].reshape(self.heads, *pairs, *rest).transpose(1, 2)
        result[:, : self.rotary] = turned.reshape(self.heads, self.rotary, *rest)
        return result.view(tensor.shape)


class OnFirst(Step):
    """A step on the first `rows` alone, which keeps their shape: queries and keys of a fused
    projection that are turned, before values that are not."""

    def __init__(self, rows: int, step: Step) -> None:
        self.rows, self.step = rows, step

    def forward_shape(self, shape: Shape) -> Shape:
        if not shape or shape[0] < self.rows:
            raise Misfit(f"should have {self.rows} rows or more")
        self.step.forward_shape((self.rows, *shape[1:]))
        return shape

    backward_shape = forward_shape

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._changed(tensor, self.step.forward)

    def backward(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._changed(tensor, self.step.backward)

    def _changed(
        self, tensor: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        result = tensor.clone()
        result[: self.rows] = change(tensor[: self.rows])
        return result


class FromHeadGroups(Step):
    """Rows of a fused projection that lie group by group (the queries of one key/value head, its
    key, its value; then the next), as Bloom, GPT-NeoX and Falcon have them, to ours: q | k | v.

    Without `kv_heads` every head has its own key and value, i.e. rows are (h, 3, e). Takes
    weights ((h + 2k) * e, d) and biases ((h + 2k) * e).
    """

    def __init__(self, heads: int, head_dim: int, kv_heads: int | None = None) -> None:
        self.heads, self.head_dim, self.kv_heads = heads, head_dim, kv_heads or heads
        assert self.heads % self.kv_heads == 0
        self.rows = (heads + 2 * self.kv_heads) * head_dim
        # how many rows of one group are q, k and v
        self.group = (heads // self.kv_heads * head_dim, head_dim, head_dim)

    def forward_shape(self, shape: Shape) -> Shape:
        if not shape or shape[0] != self.rows:
            raise Misfit(f"should have ({self.heads} + 2 x {self.kv_heads}) x {self.head_dim} rows")
        return shape

    backward_shape = forward_shape

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        import torch

        grouped = tensor.reshape(self.kv_heads, -1, *tensor.shape[1:])  # k (h/k + 2)*e ...
        return torch.cat([part.flatten(0, 1) for part in grouped.split(self.group, dim=1)])

    def backward(self, tensor: torch.Tensor) -> torch.Tensor:
        import torch

        parts = tensor.split([rows * self.kv_heads for rows in self.group])
        grouped = [part.reshape(self.kv_heads, -1, *tensor.shape[1:]) for part in parts]
        return torch.cat(grouped, dim=1).reshape(tensor.shape)


class Add(Step):
    """Ours is theirs plus a number, e.g. Gemma's norm weights, which are stored as w - 1.

    Exact only where the sum is: a weight of 1e-9 becomes 1 in fp32 and comes back as 0. Where the
    part can add the number itself, that is the better way.
    """

    def __init__(self, value: float) -> None:
        self.value = value

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor + self.value

    def backward(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor - self.value


class Scale(Step):
    """Ours is theirs times a number; exact if the number is a power of two."""

    def __init__(self, value: float) -> None:
        assert value != 0
        self.value = value

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * self.value

    def backward(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor / self.value


@dataclass(frozen=True)
class Inverse(Step):
    """The step taken the other way, e.g. `Inverse(Squeeze(0))` gives ours a leading dimension."""

    step: Step

    @property
    def copies(self) -> bool:  # type: ignore[override]
        """As the step itself."""
        return self.step.copies

    def forward_shape(self, shape: Shape) -> Shape:
        return self.step.backward_shape(shape)

    def backward_shape(self, shape: Shape) -> Shape:
        return self.step.forward_shape(shape)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.step.backward(tensor)

    def backward(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.step.forward(tensor)
