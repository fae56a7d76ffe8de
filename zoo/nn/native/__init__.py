"""Decoding's two readers of memory in C: products of few rows (`products.c`) and attention of one
query (`attend.c`). setup.py compiles them where there is a C compiler.

PyTorch's products of one to eight rows are at 0.5 to 0.9 of what the memory gives (an Intel Xeon:
bf16 16 GB/s here, 8 there); decoding does little else. Where nothing was compiled, or ZOO_LINEAR is
"torch", `library` is None and PyTorch's are used, with the same numbers up to the order of sums.
"""

# m rows, i inputs, o outputs; b batch, h heads, g key heads, n keys, c channels of a head

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.nn.matmul import chosen, runs_as_called
from zoo.nn.native.memory import closely, free, zeros

__all__ = [
    "MOST",
    "Places",
    "Rows",
    "attend",
    "attends",
    "closely",
    "library",
    "linear_int8",
    "quantise",
    "scale_sums",
    "serves",
    "zeros",
]

MOST = 8  # rows
LANES = 64  # numbers that are read at a time
CHANNELS = 512  # of a head, at most
KINDS = {torch.float32: "linear_f32", torch.bfloat16: "linear_bf16"}
SPARE = 8  # times a weight's size that must be free for it to be copied
WORTH_IT = 200_000  # numbers in a weight from which threads are woken


@cache
def library() -> Any | None:
    """Returns the compiled functions, or None: nothing was compiled here, or ZOO_LINEAR=torch."""
    if chosen() == "torch":
        return None
    here = Path(__file__).parent
    for path in (here / f"kernels{suffix}" for suffix in EXTENSION_SUFFIXES):
        if path.exists():
            break
    else:
        return None
    found = ctypes.CDLL(str(path))
    address, count, threads = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    for name, pointers, counts in (
        ("linear_bf16", 4, 3),
        ("linear_f32", 4, 3),
        ("linear_int8", 5, 3),
        ("quantise", 3, 2),
        ("scale_sums", 5, 2),
    ):
        function = getattr(found, name)
        function.argtypes = [address] * pointers + [count] * counts + [threads]
        function.restype = None
    found.linear_int8.restype = ctypes.c_int
    found.attend_rows.argtypes = [address] * 7 + [count] * 9 + [ctypes.c_float] + [threads] * 3
    found.attend_rows.restype = None
    parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None)  # PyTorch's, if it has that one
    if parallel is not None:
        found.use_threads(ctypes.cast(parallel, address))
    return found


def serves(x: Tensor) -> bool:
    """Returns whether rows (m i) can be worked on here."""
    return x.shape[-1] % LANES == 0 and library() is not None and runs_as_called()


def _threads(weight: Tensor) -> int:
    return torch.get_num_threads() if weight.numel() >= WORTH_IT else 1


class Rows:
    """A weight (o i), bf16 or fp32, copied to where few rows are multiplied with it fastest."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = closely(weight), bias
        self.call = getattr(library(), KINDS[weight.dtype])
        self.rows = self.most(weight.dtype)
        # neither is ever written to or moved while this stands for them
        self.addresses = self.weight.data_ptr(), None if bias is None else bias.data_ptr()

    @staticmethod
    def suits(weight: Tensor, rows: int) -> bool:
        """Returns whether a copy would be of use for so many rows, and memory for it is free."""
        return (
            weight.dtype in KINDS
            and 0 < rows <= Rows.most(weight.dtype)
            and serves(weight)
            and free() > SPARE * weight.numel() * weight.element_size()
        )

    @staticmethod
    def most(dtype: torch.dtype) -> int:
        """Returns how many rows of a weight of this type are better multiplied here."""
        return 2 * MOST if dtype == torch.float32 else MOST

    def serves(self, rows: int) -> bool:
        return 0 < rows <= self.rows and runs_as_called()

    def __call__(self, x: Tensor) -> Tensor:  # ... i -> ... o
        outputs, inputs = self.weight.shape
        x = x.contiguous()
        y = x.new_empty(*x.shape[:-1], outputs)
        weight, bias = self.addresses
        rows = x.numel() // inputs
        self.call(
            x.data_ptr(), weight, bias, y.data_ptr(), rows, inputs, outputs, _threads(self.weight)
        )
        return y


def linear_int8(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """Returns x (m i, fp32, at most MOST rows) times int8 numbers (o i) that stand for numbers *
    scale (o): m o. x is quantised on the way, each row by its own scale."""
    found: Any = library()
    outputs, inputs = weight.shape
    y = x.new_empty(len(x), outputs)
    failed = found.linear_int8(
        x.data_ptr(),
        weight.data_ptr(),
        scale.data_ptr(),
        None if bias is None else bias.data_ptr(),
        y.data_ptr(),
        len(x),
        inputs,
        outputs,
        _threads(weight),
    )
    if failed:
        raise MemoryError(f"No memory for {len(x)} rows of {inputs} int8 numbers.")
    return y


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (int8 numbers, scale): x (m i, fp32) is about numbers * scale (m)."""
    found: Any = library()
    numbers = torch.empty(x.shape, dtype=torch.int8)
    scale = x.new_empty(len(x))
    found.quantise(
        x.data_ptr(), numbers.data_ptr(), scale.data_ptr(), *x.shape, torch.get_num_threads()
    )
    return numbers, scale


def scale_sums(sums: Tensor, scale: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """Returns sums (m o, int32) * scale (m) * weight_scale (o) + bias; takes the sums' memory."""
    found: Any = library()
    found.scale_sums(
        sums.data_ptr(),
        scale.data_ptr(),
        weight_scale.data_ptr(),
        None if bias is None else bias.data_ptr(),
        sums.data_ptr(),
        *sums.shape,
        torch.get_num_threads(),
    )
    return sums.view(torch.float32)


class Places:
    """Where the keys of each sequence of a batch are: in which slot they begin, and how many."""

    def __init__(self, starts: Sequence[int], lengths: Sequence[int]) -> None:
        self.starts, self.lengths = starts, (ctypes.c_int64 * len(lengths))(*lengths)
        self._offsets: tuple[int, Any] = (0, None)

    def offsets(self, step: int) -> Any:
        """Returns the starts in numbers, `step` of them to a slot; every layer asks the same."""
        if self._offsets[0] != step:
            found = (ctypes.c_int64 * len(self.starts))(*[step * start for start in self.starts])
            self._offsets = step, found
        return self._offsets[1]


def attends(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Returns whether `attend` may be called: one query, on a CPU, in fp32 or bf16, nothing trained
    or compiled."""
    return (
        q.shape[2] == 1
        and q.device.type == "cpu"
        and q.dtype in KINDS
        and k.dtype in KINDS
        and q.shape[3] % 16 == 0
        and q.shape[3] <= CHANNELS
        and q.stride(3) == k.stride(3) == 1
        and k.stride() == v.stride()
        and not torch.is_grad_enabled()
        and library() is not None
        and runs_as_called()
    )


def attend(
    q: Tensor,  # b h 1 c
    k: Tensor,  # b g n c
    v: Tensor,
    bias: Tensor | None,  # 1 h 1 n, fp32
    scale: float,
    places: Places | None = None,  # then k and v are 1 g s c, slots that all sequences lie in
) -> Tensor:
    """Returns softmax(q k^T * scale + bias) v, b h 1 c, in q's precision; k and v may have another
    one than q."""
    found: Any = library()
    b, h, _, c = q.shape
    row, head, token, _ = k.stride()
    if places is None:
        places, token_or_row = Places(range(b), [k.shape[2]] * b), row
    else:
        token_or_row = token
    y = q.new_empty(b, h, 1, c)
    found.attend_rows(
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        None if bias is None else bias.data_ptr(),
        places.offsets(token_or_row),
        places.lengths,
        y.data_ptr(),
        b,
        h,
        k.shape[1],
        c,
        q.stride(0),
        q.stride(1),
        head,
        token,
        0 if bias is None else bias.stride(1),
        scale,
        q.dtype == torch.bfloat16,
        k.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    return y
