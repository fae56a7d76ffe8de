"""Inference's readers of memory in C: products of few rows (`products.c`), attention of one query
(`attend.c`) and of many (`many.c`), norms and maxima (`rows.c`), sums of numbers (`maps.c`), and
all that a step of decoding does in one call (`tape.c`). setup.py compiles them where there is a C
compiler.

PyTorch's products of one to sixteen rows are at 0.3 to 0.6 of what the memory gives (an Intel
Xeon); decoding does little else. Where nothing was compiled, or ZOO_LINEAR is "torch", `library` is
None and PyTorch's are used, with the same numbers up to the order of sums.
"""

# m rows, i inputs, o outputs; b batch, h heads, g key heads, q queries, n keys, c channels of each

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from zoo.nn.matmul import activate, has_tiles, runs_as_called
from zoo.nn.native.calls import Attention, Many, Norm, Product, Store, call, library
from zoo.nn.native.memory import free, place, zeros

__all__ = [
    "Panels",
    "Places",
    "attend",
    "attend_many",
    "attends",
    "attends_many",
    "finish_",
    "has_room",
    "largest",
    "layer_norm",
    "library",
    "reads",
    "rms_norm",
    "store",
    "zeros",
]

WIDE = 16  # outputs in a panel
LANES = 64  # inputs that are read at a time
CHANNELS = 512  # of a head, at most
TILE = 32  # numbers of bf16 in a line of a tile
SEVERAL = 12  # queries that fill enough of sixteen lanes
PRODUCTS = {  # by the weight's type
    torch.float32: "linear_f32",
    torch.bfloat16: "linear_bf16",
    torch.int8: "linear_int8",
}
FUSED = {"linear": 0, "relu": 1, "silu": 2, "gelu_tanh": 3, "gelu": 4}  # activations
FLOATS = (torch.float32, torch.bfloat16)  # of queries and keys
SPARE = 8  # times a weight's size that must be free for it to be copied
WORTH_IT = 200_000  # numbers in a weight from which threads are woken


def has_room(weight: Tensor) -> bool:
    """Returns whether memory for a copy of a weight is free, and plenty beside it."""
    return free() > SPARE * weight.numel() * weight.element_size()


class Panels:
    """A weight (o i) as products of few rows read it fastest: sixteen outputs side by side, in huge
    pages. fp32, bf16, or int8 numbers that stand for numbers * scale (o)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: Tensor | None = None) -> None:
        weight = weight.detach().contiguous()
        bias = None if bias is None else bias.detach()  # a parameter may be given other memory
        self.shape, self.dtype, self.bias, self.scale = weight.shape, weight.dtype, bias, scale
        outputs, inputs = weight.shape
        words = inputs * weight.element_size() // 4
        self.panels = place(-(-outputs // WIDE) * words * WIDE * 4)
        found: Any = library()
        found.lay(
            weight.data_ptr(), self.panels.data_ptr(), outputs, words, torch.get_num_threads()
        )
        self.call = getattr(found, PRODUCTS[self.dtype])
        self.addresses = [None if x is None else x.data_ptr() for x in (self.panels, scale, bias)]
        self.large = weight.numel() >= WORTH_IT
        self.rows = self.most(self.dtype)

    @staticmethod
    def fits(weight: Tensor) -> bool:
        """Returns whether a weight can be laid out so here."""
        return (
            weight.dtype in PRODUCTS
            and weight.shape[1] % LANES == 0
            and weight.device.type == "cpu"
            and library() is not None
        )

    @staticmethod
    def suits(weight: Tensor, rows: int) -> bool:
        """Returns whether a copy would be of use for so many rows, and memory for it is free."""
        return (
            0 < rows <= Panels.most(weight.dtype)
            and Panels.fits(weight)
            and runs_as_called()
            and has_room(weight)
        )

    @staticmethod
    @cache
    def most(dtype: torch.dtype) -> int:
        """Returns how many rows are multiplied faster here than by PyTorch's libraries."""
        if torch.backends.cpu.get_cpu_capability() != "AVX512":
            return 8  # whose sums fit in registers
        if dtype == torch.float32:
            return 64
        return 128 if has_tiles() else 16

    def serves(self, rows: int) -> bool:
        """Returns whether so many rows are best multiplied here."""
        return 0 < rows <= self.rows

    def __call__(self, x: Tensor, activation: str = "linear") -> Tensor:
        """Returns activation(x W^T + b), (... i) -> (... o), in x's type: that of the weight; for
        int8 fp32, each row being quantised on the way by its own scale."""
        outputs, inputs = self.shape
        x = x.contiguous()
        y = x.new_empty(*x.shape[:-1], outputs)
        threads = torch.get_num_threads() if self.large else 1
        rows, fused = x.numel() // inputs, FUSED.get(activation, 0)
        given = Product(
            x.data_ptr(), *self.addresses, y.data_ptr(), rows, inputs, outputs, fused, threads
        )
        given.kept = self  # whose addresses it holds
        call(self.call, given, (x,), y)
        return y if activation in FUSED else activate(y, activation)

    def dense(self) -> Tensor:
        """Returns the weight (o i) as it was given."""
        outputs = self.shape[0]
        panels = self.panels.view(torch.int32).view(-(-outputs // WIDE), -1, WIDE)
        words = panels.transpose(1, 2).contiguous()
        return words.view(-1, words.shape[2])[:outputs].view(self.dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return Panels, (self.dense(), self.bias, self.scale)


def finish_(x: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """Adds a bias (o) to x (... o), applies an activation, and returns it: fp32 in one piece that
    nobody else reads. GELU's tanh takes PyTorch five times as long."""
    found = library()
    if found is None or activation not in FUSED:
        return activate(x if bias is None else x.add_(bias), activation)
    if bias is None and activation == "linear":
        return x
    address = None if bias is None else bias.data_ptr()
    outputs, count = x.shape[-1], x.numel()
    threads = torch.get_num_threads() if count > WORTH_IT else 1
    found.finish(x.data_ptr(), address, count // outputs, outputs, FUSED[activation], threads)
    return x


class Places:
    """Where the keys of each sequence of a batch are: in which slot they begin, and how many."""

    def __init__(self, starts: Sequence[int], lengths: Sequence[int]) -> None:
        self.starts, self.lengths = starts, (ctypes.c_int64 * len(lengths))(*lengths)
        self._offsets: tuple[int, Any] = (0, None)

    def offsets(self, step: int) -> Any:
        """Returns the starts in numbers, `step` of them to a slot; every layer asks the same."""
        known, found = self._offsets  # both at once: threads share what `_in_rows` keeps
        if known != step:
            found = (ctypes.c_int64 * len(self.starts))(*[step * start for start in self.starts])
            self._offsets = step, found
        return found


@lru_cache(maxsize=16)
def _in_rows(b: int, length: int) -> Places:
    """Returns the places of sequences of one length that lie row after row: the same in every
    layer."""
    return Places(range(b), [length] * b)


def attends(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Returns whether `attend` may be called: one query, on a CPU, in fp32 or bf16, nothing trained
    or compiled."""
    return (
        q.shape[2] == 1
        and reads(q)
        and k.dtype in FLOATS
        and q.shape[3] <= CHANNELS
        and q.stride(3) == k.stride(3) == 1
        and k.stride() == v.stride()
    )


def attend(
    q: Tensor,  # b h 1 c
    k: Tensor,  # b g n c
    v: Tensor,
    bias: Tensor | None,  # 1 h 1 n, fp32
    scale: float,
    places: Places | None = None,  # then k and v are 1 g s c, slots that all sequences lie in
    window: int | None = None,
) -> Tensor:
    """Returns softmax(q k^T * scale + bias) v, b h 1 c, in q's precision; k and v may have another
    one than q. With a window its last keys are read."""
    found: Any = library()
    b, h, _, c = q.shape
    row, head, token, _ = k.stride()
    if places is None:
        places, token_or_row = _in_rows(b, k.shape[2]), row
    else:
        token_or_row = token
    y, offsets, lengths = q.new_empty(b, h, 1, c), places.offsets(token_or_row), places.lengths
    given = Attention(
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        None if bias is None else bias.data_ptr(),
        ctypes.addressof(offsets),
        ctypes.addressof(lengths),
        y.data_ptr(),
        q.stride(0),
        q.stride(1),
        head,
        token,
        0 if bias is None else bias.stride(1),
        b,
        h,
        k.shape[1],
        c,
        window or 0,
        scale,
        q.dtype == torch.bfloat16,
        k.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    given.kept = offsets, lengths  # whose addresses it holds
    return call(found.attend_rows, given, (q, k, v) if bias is None else (q, k, v, bias), y)


def attends_many(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Returns whether `attend_many` may be called, and is faster than PyTorch's: fp32 on a CPU with
    AVX-512, bf16 on one with tiles, nothing trained or compiled."""
    return (
        q.shape[2] >= SEVERAL
        and reads(q)
        and q.dtype == k.dtype == v.dtype
        and q.shape[3] == v.shape[3] <= CHANNELS
        and q.stride(3) == k.stride(3) == v.stride(3) == 1
        and _multiplies(q.dtype, q.shape[3])
    )


def _multiplies(dtype: torch.dtype, channels: int) -> bool:
    if dtype == torch.bfloat16:
        return has_tiles() and channels % TILE == 0
    return dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() == "AVX512"


def attend_many(
    q: Tensor,  # b h q c
    k: Tensor,  # b g n c
    v: Tensor,
    scale: float,
    bias: Tensor | None = None,  # b|1 h|1 q|1 n, fp32; as it is if its queries lie without gaps
    real: Tensor | None = None,  # b|1 n, bool: False where nobody may look
    before: int | None = None,
    after: int | None = None,
) -> Tensor:
    """Returns softmax(q k^T * scale + bias) v, b h q c, all in fp32, or in bf16 with sums in fp32;
    zeros for who sees nothing. The scale is more than 0.

    The queries are the last ones of the keys' sequence, and see so many keys before and after their
    own place; None: all."""
    found: Any = library()
    b, h, queries, c = q.shape
    keys = k.shape[2]
    if bias is not None and bias.shape[2] > 1 and bias.stride(2) != 1:
        bias = bias.transpose(2, 3).contiguous().transpose(2, 3)
    if real is not None and real.stride(1) != 1:
        real = real.contiguous()
    y = q.new_empty(b, queries, h, c)
    steps = [0 if bias is None or bias.shape[i] == 1 else bias.stride(i) for i in range(4)]
    given = Many(
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        None if bias is None else bias.data_ptr(),
        None if real is None else real.data_ptr(),
        y.data_ptr(),
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        *steps,
        0 if real is None or len(real) == 1 else real.stride(0),
        b,
        h,
        k.shape[1],
        queries,
        keys,
        c,
        queries + keys if before is None else before,  # of all that there are
        queries + keys if after is None else after,
        scale,
        q.dtype == torch.bfloat16,
        torch.get_num_threads() if b * h * queries * keys * c > WORTH_IT else 1,
    )
    reads = (q, k, v, *(x for x in (bias, real) if x is not None))
    return call(found.attend_many, given, reads, y).transpose(1, 2)


def store(x: Tensor, slots: Tensor, where: Tensor) -> None:
    """Writes x (b g n c) to slots (g s c), each token to the one that `where` (b*n) names."""
    b, g, n, c = x.shape
    plain = x.dtype == slots.dtype and slots.device.type == "cpu" and x.stride(3) == 1
    if not plain or library() is None or not runs_as_called():
        slots[:, where] = x.transpose(0, 1).flatten(1, 2).to(slots.dtype)
        return
    found: Any = library()
    size = x.element_size()
    steps = [step * size for step in (*x.stride()[:3], *slots.stride()[:2])]
    given = Store(x.data_ptr(), slots.data_ptr(), where.data_ptr(), b, g, n, c * size, *steps)
    call(found.store, given, (x,), slots)


def reads(x: Tensor) -> bool:
    """Returns whether rows (... c) can be worked on here: on a CPU, in fp32 or bf16, nothing
    trained."""
    return (
        runs_as_called()  # first: what is traced must not look further
        and x.dtype in FLOATS
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and library() is not None
    )


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Returns x / sqrt(mean(x^2) + eps) * weight (c), over the last axis of x (... c)."""
    found: Any = library()
    return _norm(found.rms_norm, x, weight, None, eps)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Returns (x - mean) / sqrt(variance + eps) * weight + bias, over the last axis of x (... c).

    Weight and bias (c) have one type."""
    found: Any = library()
    return _norm(found.layer_norm, x, weight, bias, eps)


def _norm(function: Any, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    x, c = x.contiguous(), len(weight)
    y = torch.empty_like(x)
    numbers = x.numel()
    given = Norm(
        x.data_ptr(),
        weight.data_ptr(),
        None if bias is None else bias.data_ptr(),
        y.data_ptr(),
        numbers // c,
        c,
        eps,
        x.dtype == torch.bfloat16,
        weight.dtype == torch.bfloat16,
        torch.get_num_threads() if numbers > WORTH_IT else 1,
    )
    return call(function, given, (x, weight) if bias is None else (x, weight, bias), y)


def largest(x: Tensor) -> Tensor:
    """Returns the place of the largest number of each row (m c): m. Of several that of the first,
    of the first NaN if there is one."""
    found: Any = library()
    m, c = x.shape
    x = x if x.stride(1) == 1 else x.contiguous()
    places = torch.empty(m, dtype=torch.long)
    found.largest(
        x.data_ptr(),
        places.data_ptr(),
        m,
        x.stride(0),
        c,
        x.dtype == torch.bfloat16,
        torch.get_num_threads() if m * c > WORTH_IT else 1,
    )
    return places
