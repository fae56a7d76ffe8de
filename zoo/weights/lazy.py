"""A tensor whose shape and dtype are known before it is read. Imports torch only to read."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["ITEM_SIZES", "LazyTensor", "MemoryTensor", "as_lazy", "same_bits"]

# Every dtype that can be stored: torch's name for it -> bytes per element. The order is that of a
# safetensors file, whose tensors lie widest first, so that each one is aligned to its own element.
ITEM_SIZES = {
    "uint64": 8, "int64": 8, "float64": 8, "complex64": 8,
    "float32": 4, "uint32": 4, "int32": 4,
    "bfloat16": 2, "float16": 2, "uint16": 2, "int16": 2,
    "float8_e5m2fnuz": 1, "float8_e4m3fnuz": 1, "float8_e8m0fnu": 1,
    "float8_e4m3fn": 1, "float8_e5m2": 1,
    "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip

BLOCK_BYTES = 1 << 24  # how much of a tensor is held at once when two are compared
OWN_MAPPING = 1 << 18  # bytes from which a tensor has a mapping of its own


class LazyTensor:
    """A stored tensor: its shape and dtype now, its values when `read()` is called.

    `dtype` is torch's name for it ("float32", "bfloat16", ...): listing a file needs no torch.
    """

    shape: tuple[int, ...]
    dtype: str
    fresh = False  # whether read() always gives memory of its own

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return self.numel * ITEM_SIZES[self.dtype]

    def read(self, copy: bool = False) -> torch.Tensor:
        """The values, contiguous, on the CPU; unless `copy`, shared with the source if possible."""
        raise NotImplementedError

    def view(self) -> torch.Tensor:
        """The values, if possible without memory of their own, then perhaps not contiguous."""
        return self.read()

    def scratch(self) -> torch.Tensor:
        """The values, to compute from and then drop."""
        return self.read()

    def read_into(self, out: torch.Tensor) -> None:
        """Write the values into `out`: contiguous, on the CPU, of the same shape and dtype."""
        out.copy_(self.read())

    def blocks(self) -> Iterator[memoryview]:
        """The raw bytes, a block at a time."""
        raw = raw_bytes(self.read())
        for start in range(0, len(raw), BLOCK_BYTES):
            yield raw[start : start + BLOCK_BYTES]

    def __getitem__(self, index: Any) -> torch.Tensor:
        """A part of the values; of a mapped file only the pages in use are read."""
        return self.read()[index]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dtype}, {self.shape})"


class MemoryTensor(LazyTensor):
    """A tensor that is already in memory, seen as a lazy one."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor.detach()
        self.shape = tuple(tensor.shape)
        self.dtype = str(tensor.dtype).removeprefix("torch.")

    def read(self, copy: bool = False) -> torch.Tensor:
        here = self.tensor.cpu().contiguous()
        return owned(here) if copy and here.data_ptr() == self.tensor.data_ptr() else here


def as_lazy(value: LazyTensor | torch.Tensor) -> LazyTensor:
    """`value` itself if it is lazy, otherwise the tensor behind the lazy interface."""
    return value if isinstance(value, LazyTensor) else MemoryTensor(value)


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, shared with it: writing to them writes the tensor."""
    import torch

    if tensor.numel() == 0:
        return memoryview(b"")
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data


def own_memory(shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    """An uninitialised tensor, on huge pages if it is large.

    A large tensor is a mapping of its own: its memory goes back to the system when it is dropped,
    where the heap would keep holes between tensors that stay (1.2x in a load that computes), and
    2 MB pages make filling it twice as fast as 4 KB pages do.
    """
    import torch

    size = math.prod(shape) * ITEM_SIZES[dtype]
    if size < OWN_MAPPING:
        return torch.empty(shape, dtype=getattr(torch, dtype))
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=getattr(torch, dtype)).view(shape)


def owned(tensor: torch.Tensor, dtype: str = "") -> torch.Tensor:
    """A contiguous copy on the CPU, cast to `dtype` if one is given."""
    name = dtype or str(tensor.dtype).removeprefix("torch.")
    return own_memory(tuple(tensor.shape), name).copy_(tensor)


def same_bits(a: LazyTensor, b: LazyTensor) -> bool:
    """Whether two tensors hold the same bits (so NaN equals NaN), comparing a block at a time."""
    if a is b or _same_memory(a, b):
        return True
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    return all(x == y for x, y in zip(a.blocks(), b.blocks(), strict=True))


def _same_memory(a: LazyTensor, b: LazyTensor) -> bool:
    if not (isinstance(a, MemoryTensor) and isinstance(b, MemoryTensor)):
        return False
    x, y = a.tensor, b.tensor
    layouts = (x.shape, x.stride(), x.dtype) == (y.shape, y.stride(), y.dtype)
    return layouts and x.data_ptr() == y.data_ptr()


def describe(shape: tuple[int, ...]) -> str:
    """`(3, 4)` as people write it, also for one or no dimension."""
    return f"({', '.join(map(str, shape))})"


def nbytes(weights: Mapping[str, LazyTensor]) -> int:
    """Size of all tensors in bytes; one that has two names counts once."""
    unique = {id(tensor): tensor for tensor in weights.values()}
    return sum(tensor.nbytes for tensor in unique.values())
