"""Tensors that are computed from stored ones when they are read.

A computed tensor reads its sources as scratch (straight from the file, one at a time), not through
the memory map: pages that are only copied from would stay and count as our memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.errors import WeightsError
from zoo.weights.lazy import LazyTensor, describe, own_memory, owned, same_bits
from zoo.weights.steps import Misfit, Shape, Step

if TYPE_CHECKING:
    import torch

__all__ = ["Filled", "Joined", "Same", "Summed", "cut", "stepped", "undone"]


class Stepped(LazyTensor):
    """A tensor after one step. Raises Misfit if the step cannot take its shape."""

    def __init__(self, source: LazyTensor, step: Step) -> None:
        self.source, self.step = source, step
        self.shape = step.forward_shape(source.shape)
        self.dtype = source.dtype
        self.fresh = step.copies or source.fresh

    def read(self, copy: bool = False) -> torch.Tensor:
        if self.step.copies:
            return self.scratch()
        return self.step.forward(self.source.read(copy)).contiguous()

    def view(self) -> torch.Tensor:
        # A product reads a transposed matrix as fast as a plain one, and turning it over costs more
        # than all the rest of a load.
        turned = self.step.views and not self.source.fresh
        return self.step.forward(self.source.view()) if turned else self.read()

    def scratch(self) -> torch.Tensor:
        return _contiguous(self.step.forward(self.source.scratch()))


class Joined(LazyTensor):
    """Several tensors one after another along `dim`. Raises Misfit if they do not go together."""

    fresh = True

    def __init__(self, parts: Sequence[LazyTensor], dim: int) -> None:
        self.parts, self.dim = parts, dim
        shapes = [part.shape for part in parts]
        rest = {(*shape[:dim], *shape[dim + 1 :]) for shape in shapes}
        if len(rest) > 1 or any(len(shape) <= dim for shape in shapes):
            raise Misfit(f"cannot be joined in dimension {dim}: {', '.join(map(describe, shapes))}")
        dtypes = sorted({part.dtype for part in parts})
        if len(dtypes) > 1:
            raise Misfit(f"should have one dtype, not {' and '.join(dtypes)}")
        length = sum(shape[dim] for shape in shapes)
        self.shape = (*shapes[0][:dim], length, *shapes[0][dim + 1 :])
        self.dtype = parts[0].dtype

    def read(self, copy: bool = False) -> torch.Tensor:
        if self.dim > 0:
            import torch

            return torch.cat([part.scratch() for part in self.parts], self.dim)
        out = own_memory(self.shape, self.dtype)
        start = 0
        for part in self.parts:
            part.read_into(out[start : start + part.shape[0]])
            start += part.shape[0]
        return out


class Slice(LazyTensor):
    """A stretch of a tensor along `dim`."""

    def __init__(self, source: LazyTensor, dim: int, start: int, size: int) -> None:
        self.source, self.dim, self.start, self.size = source, dim, start, size
        self.shape = (*source.shape[:dim], size, *source.shape[dim + 1 :])
        self.dtype = source.dtype
        self.fresh = source.fresh

    def read(self, copy: bool = False) -> torch.Tensor:
        piece = self.source.read().narrow(self.dim, self.start, self.size)
        # A view of a computed whole would keep all of it alive.
        return piece.contiguous() if not (copy or self.fresh) else owned(piece)

    def scratch(self) -> torch.Tensor:
        return _contiguous(self.source.scratch().narrow(self.dim, self.start, self.size))


class Summed(LazyTensor):
    """A tensor plus another one, which may have fewer rows; in the dtype of the first. Raises
    Misfit if the shapes do not go together."""

    fresh = True

    def __init__(self, first: LazyTensor, other: LazyTensor) -> None:
        rows, columns = first.shape[:1], first.shape[1:]
        if len(first.shape) != len(other.shape) or other.shape[1:] != columns:
            raise Misfit(f"is {describe(other.shape)}, to be added to {describe(first.shape)}")
        if other.shape[:1] > rows:
            raise Misfit(f"has {other.shape[0]} rows, to be added to {rows[0]}")
        self.first, self.other = first, other
        self.shape, self.dtype = first.shape, first.dtype

    def read(self, copy: bool = False) -> torch.Tensor:
        out = own_memory(self.shape, self.dtype)
        self.first.read_into(out)
        added = self.other.scratch().to(out.dtype)
        if out.ndim:
            out[: len(added)] += added
        else:
            out += added
        return out


class Filled(LazyTensor):
    """One number everywhere."""

    fresh = True

    def __init__(self, shape: Shape, value: float, dtype: str) -> None:
        self.shape, self.value, self.dtype = tuple(shape), value, dtype

    def read(self, copy: bool = False) -> torch.Tensor:
        import torch

        return torch.full(self.shape, self.value, dtype=getattr(torch, self.dtype))


class Same(LazyTensor):
    """A tensor that is stored several times; the first reading checks that all copies agree.

    `label` names the copies in the error.
    """

    def __init__(self, first: LazyTensor, others: Sequence[LazyTensor], label: str) -> None:
        self.first, self.others, self.label = first, others, label
        self.shape, self.dtype, self.fresh = first.shape, first.dtype, first.fresh

    def read(self, copy: bool = False) -> torch.Tensor:
        self._check()
        return self.first.read(copy)

    def scratch(self) -> torch.Tensor:
        self._check()
        return self.first.scratch()

    def _check(self) -> None:
        if not all(same_bits(self.first, other) for other in self.others):
            raise WeightsError(
                f"{self.label} differ in the file but are one tensor in this model; set its config "
                "to untied weights."
            )
        self.others = ()


def stepped(lazy: LazyTensor, steps: Sequence[Step]) -> LazyTensor:
    """`lazy` after all steps, from theirs to ours."""
    for step in steps:
        lazy = Stepped(lazy, step)
    return lazy


def undone(tensor: torch.Tensor, steps: Sequence[Step]) -> torch.Tensor:
    """`tensor` before all steps, from ours to theirs."""
    for step in reversed(steps):
        step.backward_shape(tuple(tensor.shape))  # raises Misfit
        tensor = step.backward(tensor)
    return tensor


def cut(whole: LazyTensor, dim: int, sizes: Shape) -> list[LazyTensor]:
    """`whole` in pieces of the given sizes along `dim`."""
    starts = [sum(sizes[:position]) for position in range(len(sizes))]
    return [Slice(whole, dim, start, size) for start, size in zip(starts, sizes, strict=True)]


def _contiguous(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.is_contiguous() else owned(tensor)
