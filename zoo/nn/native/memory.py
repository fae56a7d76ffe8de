"""Memory in huge pages, where the system has them: a token's step reads every weight once, and
with pages of 4 KiB a tenth of its time (an Intel Xeon) goes to looking them up."""

from __future__ import annotations

import math
import mmap
import threading

import torch
from torch import Tensor

__all__ = ["free", "place", "zeros"]

PAGE = 2 << 20  # bytes of a huge page
BLOCK = 16 * PAGE
LINE = 64  # of the processor's cache

_lock = threading.Lock()
_block, _used = torch.empty(0, dtype=torch.uint8), 0  # what is being filled


def place(size: int) -> Tensor:
    """Returns bytes in huge pages, right behind those given before: memory is best taken in the
    order in which it will be read. That of a block is given back with the last of its tensors, that
    of the one being filled once another is begun."""
    global _block, _used
    with _lock:
        if _used + size > len(_block):
            _block, _used = _pages(max(size, BLOCK)), 0
        found = _block[_used : _used + size]
        _used += -(-size // LINE) * LINE
    return found


def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Returns zeros in huge pages, which take no memory till they are written."""
    size = math.prod(shape) * dtype.itemsize
    return _pages(size).view(dtype).view(shape)


def _pages(size: int) -> Tensor:  # bytes
    """Returns bytes that start where a huge page does; zeros that take no memory till written."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(size, dtype=torch.uint8)
    found = mmap.mmap(-1, size + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    found.madvise(mmap.MADV_HUGEPAGE)
    with torch.inference_mode(False):
        whole = torch.frombuffer(found, dtype=torch.uint8)
        start = -whole.data_ptr() % PAGE
        return whole[start : start + size]


def free() -> int:
    """Returns the bytes that can be had without pushing anything out; 0 where that is not known."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found = next(line for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 0
    return int(found.split()[1]) * 1024
