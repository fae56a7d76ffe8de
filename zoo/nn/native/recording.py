"""Notes what a piece of a model does, in calls of C, instead of doing it.

While a `Recording` is on, the parts of the model run as they always do, but nothing is calculated:
kernels of zoo.nn.native are noted with the addresses that they were given, so are those of
PyTorch's operators that have an equivalent there, and views need none. Whatever else a part does to
numbers raises `Unknown`, and the model goes on as before. So a part need not know of tapes, and one
that nobody here has seen is either noted right or not at all.
"""

# b batch, h heads, g key heads, n keys, s keys that there is room for, c channels of a head

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.nn import native
from zoo.nn.native.calls import AXES, Attention, Map, Product, Store, library, state

__all__ = ["Keys", "Recording", "Unknown"]

aten = torch.ops.aten
ADD, MULTIPLY = 0, 1
ALLOCATES = {
    aten.empty.memory_format,
    aten.new_empty.default,
    aten.empty_like.default,
    aten.empty_strided.default,
}


class Unknown(Exception):
    """Something that no tape can hold."""


Pairs = Mapping[int, tuple[Tensor, Tensor]]  # layer -> keys and values


@dataclass(eq=False)
class Keys:
    """Where steps find keys and values, and write new ones: those of `start` tokens before each
    sequence's own, b g s c; or, where there are `slots`, those of each sequence at `where` in one
    row that all share, 1 g s c. A cache gives the same one as long as nothing has been moved."""

    grown: Pairs
    kept: Pairs  # of a memory, b g m c
    start: int = 0
    slots: Tensor | None = None  # b, of the new tokens
    where: native.Places | None = None
    text: object = None  # stays the same while a cache does, wherever its keys are

    @property
    def texts(self) -> object:
        """What stays the same while the same texts go on."""
        return self.text if self.where is None else tuple(self.where.starts)

    @property
    def lengths(self) -> list[int]:
        """How many keys there are, in each sequence or in all."""
        return [self.start + 1] if self.where is None else list(self.where.lengths)


class _Unseen(TorchFunctionMode):
    """Refuses what reads numbers without an operator that a recording would meet."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("numpy", "tolist", "__array__", "__dlpack__"):
            raise Unknown(f"A part reads numbers: {func.__name__}.")
        return func(*args, **(kwargs or {}))


class Recording(TorchDispatchMode):
    """Notes what is done inside `with`. Tensors that may be read are those that are made here,
    `known` ones, and keys and values."""

    def __init__(
        self,
        known: Iterable[Tensor],
        keys: Keys,
        bias: Tensor | None = None,  # 1 h 1 n
    ) -> None:
        super().__init__()
        self.found: Any = library()
        self.outer: list[Any] = []  # what was on before
        self.unseen = _Unseen()
        self.calls: list[tuple[Any, ctypes.Structure]] = []
        self.made: list[Tensor] = []  # whose addresses the calls hold
        self.inner: set[int] = set()  # where they are
        self.known: dict[int, list[Tensor]] = {}  # place -> those that lie there
        for x in known:
            self.known.setdefault(_place(x), []).append(x)
        self.fixed: dict[int, list[Tensor]] = {}  # those that are read
        self.keys, self.bias = keys, bias
        # address -> (of grown ones, layer, keys or values)
        self.pairs = {
            x.data_ptr(): (grows, layer, index)
            for grows, pairs in ((True, keys.grown), (False, keys.kept))
            for layer, pair in pairs.items()
            for index, x in enumerate(pair)
        }
        self.turn = (ctypes.c_int64 * 1)(keys.start)
        # what changes with the step or the cache
        self.writers: list[tuple[Any, int, int]] = []  # of new keys or values: layer, which
        self.readers: list[tuple[Attention, bool, int, Any]] = []  # of grown ones, layer, type
        self.biased: list[Attention] = []

    def __enter__(self) -> Recording:
        if not self.outer:  # inside an operator the numbers are PyTorch's affair
            self.unseen.__enter__()
        self.outer.append(state.recording)
        state.recording = self
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        state.recording = self.outer.pop()
        if not self.outer:
            self.unseen.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in NOTED:
            return NOTED[func](self, *args, **kwargs)
        if func in ALLOCATES:
            return self.own(func(*args, **kwargs))
        if func._can_decompose():
            with self:
                return func.decompose(*args, **kwargs)
        if func.is_view:
            y = func(*args, **kwargs)
            if isinstance(y, Tensor) and (y.is_neg() or y.is_conj()):
                raise Unknown(f"{func} gives numbers with another sign than those in memory.")
            return y
        raise Unknown(f"{func} has no equivalent in C.")

    def own(self, x: Tensor) -> Tensor:
        """Takes in a tensor that was made here."""
        self.made.append(x)
        self.inner.add(_place(x))
        return x

    def _reads(self, places: Iterable[int]) -> None:
        """Raises Unknown for what the next step may not find where it is."""
        for place in places:
            if place in self.known:
                self.fixed[place] = self.known[place]
            elif place not in self.inner:
                raise Unknown("A tensor is read that the next step may not find there.")

    def note(self, call: Any, given: ctypes.Structure, reads: Sequence[Tensor], y: Tensor) -> None:
        """Notes a call that reads tensors and writes y."""
        places = [_place(x) for x in reads]
        if isinstance(given, Attention):
            places = self._keys(given, reads, places)
        self._reads(places)
        if isinstance(given, Store):
            self._stores(given, y)
        elif _place(y) not in self.inner:
            raise Unknown("A tensor is written to that was not made here.")
        self.calls.append((call, given))

    def _keys(self, given: Attention, reads: Sequence[Tensor], places: list[int]) -> list[int]:
        """Has attention find keys, values and bias where they will be; returns the places that this
        does not explain."""
        q, k, v, *bias = places
        rest, keys, pair = [q], self.keys, self.pairs.get(reads[1].data_ptr())
        if pair is not None and self.pairs.get(reads[2].data_ptr()) == (*pair[:2], 1):
            grows, layer, _ = pair
            count = keys.start + 1 if grows else keys.kept[layer][0].shape[2]
            in_slots = grows and keys.where is not None and given.kept[1] is keys.where.lengths
            if not in_slots and (reads[1].shape[2] != count or (grows and keys.where)):
                raise Unknown("Only a part of the keys is read.")
            self.readers.append((given, grows, layer, reads[1].dtype))
        else:
            rest += [k, v]
        if bias and self.bias is not None and given.bias == self.bias.data_ptr():
            self.biased.append(given)
        else:
            rest += bias
        return rest

    def _stores(self, given: Store, slots: Tensor) -> None:
        """Has new keys or values written to other slots at each step."""
        grows, layer, index = self.pairs.get(slots.data_ptr(), (False, 0, 0))
        new = self.keys.slots
        if not grows or new is None or given.slot != new.data_ptr() or given.n != 1:
            raise Unknown("Slots are written to that are not the step's.")
        self.writers.append((given, layer, index))

    def map(
        self,
        kind: int,
        a: Tensor,
        b: Tensor | None = None,
        factor: float = 1.0,
        activation: str = "linear",
        dtype: torch.dtype | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Notes numbers made of those of a and b, one by one; returns where they will be."""
        tensors = [x for x in (a, b) if x is not None]
        shape = torch.broadcast_shapes(*(x.shape for x in tensors))
        kinds = dtype or (a.dtype if b is None else torch.result_type(a, b))
        y = self.own(torch.empty(shape, dtype=kinds)) if out is None else out
        everything = [*tensors, y]
        if any(x.dtype not in native.FLOATS or x.device.type != "cpu" for x in everything):
            raise Unknown("Numbers are neither fp32 nor bf16, or not a CPU's.")
        if len(shape) > AXES:
            raise Unknown(f"A tensor of {len(shape)} axes.")
        if y.shape != shape:
            raise Unknown("A tensor is spread over a larger one that it is written to.")
        given = Map(a=a.data_ptr(), y=y.data_ptr(), factor=factor, kind=kind)
        given.size[:] = [1] * (AXES - len(shape)) + list(shape)
        given.a_step[:], given.a_bf16 = _steps(a, shape), a.dtype == torch.bfloat16
        given.y_step[:], given.y_bf16 = _steps(y, shape), y.dtype == torch.bfloat16
        given.activation = native.FUSED[activation]
        if b is not None:
            given.b, given.b_bf16 = b.data_ptr(), b.dtype == torch.bfloat16
            given.b_step[:] = _steps(b, shape)
        if not shape or (given.y_step[AXES - 1] == 0 and shape[-1] > 1):
            raise Unknown("Numbers are written to that do not lie side by side.")
        if _place(y) in self.inner:
            self.note(self.found.map, given, tensors, y)
        else:
            self._reads(map(_place, tensors))
            self._turn(given, y)
            self.calls.append((self.found.map, given))
        return y

    def _turn(self, given: Map, y: Tensor) -> None:
        """Has new keys or values written to their own place at each step."""
        step = y.stride(2) if len(y.shape) == AXES else 0
        start = y.data_ptr() - self.keys.start * step * y.element_size()
        grows, layer, index = self.pairs.get(start, (False, 0, 0))
        if not grows or self.keys.slots is not None or y.shape[2] != 1:
            raise Unknown("A tensor is written to that is not the next place of a cache.")
        given.y, given.turn = start, ctypes.addressof(self.turn)
        given.turn_step = step
        self.writers.append((given, layer, index))


def _place(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _steps(x: Tensor, shape: Sequence[int]) -> list[int]:
    """Returns the steps of a tensor that is spread to a shape of AXES axes or less."""
    steps = [0] * (AXES - len(shape)) + list(x.expand(shape).stride())
    if shape and shape[-1] == 1:
        steps[-1] = 0
    if steps[-1] not in (0, 1):
        raise Unknown("Numbers of the last axis do not lie side by side.")
    return steps


# -- PyTorch's operators ---------------------------------------------------------------------------


def _add(tape: Recording, a: Tensor, b: Any, alpha: float = 1, out: Tensor | None = None) -> Tensor:
    if not isinstance(b, Tensor):
        raise Unknown("A number is added.")
    return tape.map(ADD, a, b, factor=alpha, out=out)


def _multiply(tape: Recording, a: Tensor, b: Any, out: Tensor | None = None) -> Tensor:
    if isinstance(b, Tensor):
        return tape.map(MULTIPLY, a, b, out=out)
    return tape.map(ADD, a, factor=b, out=out)


def _copy(tape: Recording, x: Tensor, dtype: torch.dtype | None = None, **other: Any) -> Tensor:
    if any(other.get(key) is not None for key in ("layout", "device", "pin_memory")):
        raise Unknown("A tensor goes to another device.")
    return tape.map(ADD, x, dtype=dtype)


def _joined(tape: Recording, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    if len({x.dtype for x in tensors}) > 1:
        raise Unknown("Tensors of several types are joined.")
    shape = list(tensors[0].shape)
    shape[dim] = sum(x.shape[dim] for x in tensors)
    y, start = tape.own(torch.empty(shape, dtype=tensors[0].dtype)), 0
    for x in tensors:
        tape.map(ADD, x, out=y.narrow(dim, start, x.shape[dim]))
        start += x.shape[dim]
    return y


def _activated(name: str, in_place: bool = False) -> Callable[..., Tensor]:
    def noted(tape: Recording, x: Tensor, *, approximate: str = "none") -> Tensor:
        kind = "gelu_tanh" if approximate == "tanh" else name
        return tape.map(ADD, x, activation=kind, out=x if in_place else None)

    return noted


def _layer_norm(tape: Recording, x: Tensor, shape: Any, weight: Any = None, bias: Any = None,
                eps: float = 1e-5, *_: Any) -> Tensor:  # fmt: skip
    if weight is None:
        raise Unknown("A norm without a weight.")
    kinds = {weight.dtype} | ({bias.dtype} if bias is not None else set())
    if len(shape) != 1 or len(kinds) != 1 or {x.dtype, *kinds} - set(native.FLOATS):
        raise Unknown("A norm of a kind that is not known.")
    with tape:
        return native.layer_norm(x, weight, bias, eps)


def _product(tape: Recording, bias: Tensor | None, x: Tensor, turned: Tensor, *, beta: float = 1,
             alpha: float = 1) -> Tensor:  # fmt: skip
    weight = turned.t()  # o i
    plain = x.is_contiguous() and weight.is_contiguous() and beta == alpha == 1
    if not plain or weight.numel() >= native.WORTH_IT or x.dtype not in native.FLOATS:
        raise Unknown("A product that is PyTorch's.")
    if weight.dtype != x.dtype or (bias is not None and not _goes_with(bias, weight)):
        raise Unknown("A product of several types.")
    y = tape.own(torch.empty(len(x), len(weight), dtype=x.dtype))
    given = Product(
        x=x.data_ptr(),
        w=weight.data_ptr(),
        bias=None if bias is None else bias.data_ptr(),
        y=y.data_ptr(),
        m=len(x),
        i=x.shape[1],
        o=len(weight),
    )
    call = tape.found.small_bf16 if x.dtype == torch.bfloat16 else tape.found.small_f32
    tape.note(call, given, [x, weight] if bias is None else [x, weight, bias], y)
    return y


def _goes_with(bias: Tensor, weight: Tensor) -> bool:
    return bias.dtype == weight.dtype and bias.shape == weight.shape[:1] and bias.is_contiguous()


NOTED: dict[Any, Callable[..., Any]] = {
    aten.add.Tensor: _add,
    aten.add_.Tensor: lambda tape, a, b, alpha=1: _add(tape, a, b, alpha, a),
    aten.mul.Tensor: _multiply,
    aten.mul_.Tensor: lambda tape, a, b: _multiply(tape, a, b, a),
    aten.neg.default: lambda tape, x: tape.map(ADD, x, factor=-1.0),
    aten.clone.default: lambda tape, x, **_: tape.map(ADD, x),
    aten._to_copy.default: _copy,
    aten.copy_.default: lambda tape, y, x, blocking=False: tape.map(ADD, x, out=y),
    aten.cat.default: _joined,
    aten._unsafe_view.default: lambda tape, x, size: x.view(size),
    aten.layer_norm.default: _layer_norm,
    aten.native_layer_norm.default: lambda tape, *given: (
        _layer_norm(tape, *given), torch.empty(0), torch.empty(0),
    ),
    aten.addmm.default: _product,
    aten.mm.default: lambda tape, x, turned: _product(tape, None, x, turned),
    aten.relu.default: _activated("relu"),
    aten.relu_.default: _activated("relu", True),
    aten.silu.default: _activated("silu"),
    aten.silu_.default: _activated("silu", True),
    aten.gelu.default: _activated("gelu"),
    aten.gelu_.default: _activated("gelu", True),
}  # fmt: skip
