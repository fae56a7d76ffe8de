"""Caches of keys and values. A decoder hands each layer's new k and v to one and gets all of them
back; everything else (undoing, copying, forgetting) is between the cache and who decodes.

| cache          | numbers held                               | cost of a step
|
|----------------|--------------------------------------------|---------------------------------------|
| `DynamicCache` | 2 L b g n c, up to twice that while growing | the new tokens; now and then one
copy |
| `StaticCache`  | 2 L b g capacity c, from the first token on | the new tokens
|
| `FixedCache`   | as `StaticCache`                            | the whole buffer is read: for CUDA
graphs |
| `SlidingCache` | 2 L b g min(n, window + chunk) c            | the new tokens; now and then one
copy |
| `Int8Cache`    | a quarter of fp32 (half of bf16) + scales   | all tokens are expanded at every
step |
| `PagedCache`   | pages in use, shared ones once              | all tokens are gathered at every
step |

L layers. Keys and values of a memory (cross-attention) are computed once and kept beside them.
`PagedCache` is in `zoo.nn.paged`.
"""

# b batch, g key heads, n tokens, c channels of a head

from __future__ import annotations

from copy import copy
from typing import Protocol

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.nn.forms import quantise
from zoo.nn.native.recording import Keys

__all__ = [
    "CACHES",
    "Cache",
    "DynamicCache",
    "FixedCache",
    "Int8Cache",
    "SlidingCache",
    "StaticCache",
]


class Cache(Protocol):
    """What attention and decoding ask of a cache."""

    @property
    def length(self) -> int:
        """Tokens that every layer has seen."""

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds new keys and values (b g n c) of a layer and returns all of its keys and values."""

    def memory(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Returns the kept keys and values of the memory of a layer's cross-attention, if any."""

    def keep_memory(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Keeps the keys and values of the memory: computed once, read at every step."""

    def rewind(self, length: int) -> None:
        """Forgets every token from `length` on."""

    def select(self, rows: Tensor) -> None:
        """Makes the batch the given rows of it, in order; rows may repeat (beams) or be left
        out."""

    def fork(self) -> Cache:
        """Returns a cache with the same content that goes its own way."""

    def free(self) -> None:
        """Gives the memory back; the cache is empty afterwards."""

    @property
    def nbytes(self) -> int:
        """Bytes held now."""


class _Memories:
    """The memory of cross-attention, by layer."""

    def __init__(self) -> None:
        self.memories: dict[int, tuple[Tensor, Tensor]] = {}
        self.owners: Tensor | None = None  # whose memory each row has, once rows were selected

    def memory(self, layer: int) -> tuple[Tensor, Tensor] | None:
        return self.memories.get(layer)

    def keep_memory(self, layer: int, k: Tensor, v: Tensor) -> None:
        self.memories[layer] = (k, v)

    def select_memories(self, rows: Tensor) -> None:
        """Moves the memories along with their rows; beams that change places share one, which is
        far longer than what they have written, so that nothing is copied then."""
        if not self.memories:
            return
        if self.owners is None:
            k, _ = next(iter(self.memories.values()))
            self.owners = torch.arange(k.shape[0], device=rows.device)
        owners = self.owners.index_select(0, rows)
        if not torch.equal(owners, self.owners):
            for layer, (k, v) in self.memories.items():
                self.memories[layer] = (k.index_select(0, rows), v.index_select(0, rows))
        self.owners = owners


class DynamicCache(_Memories):
    """Grows by doubling; what is read is a view of what is held."""

    FIRST = 64  # tokens of room to begin with

    def __init__(self) -> None:
        super().__init__()
        self.buffers: dict[int, tuple[Tensor, Tensor]] = {}  # layer -> k, v with room to spare
        self.filled: dict[int, int] = {}  # layer -> tokens in it
        self._keys: Keys | None = None  # what steps are told, until something is moved
        self._text = object()
        self._room = 0  # tokens that there is room for

    @property
    def length(self) -> int:
        return min(self.filled.values(), default=0)

    @property
    def nbytes(self) -> int:
        held = [*self.buffers.values(), *self.memories.values()]
        return sum(t.nbytes for pair in held for t in pair)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        start = self.filled.get(layer, 0)
        end = start + k.shape[2]
        if layer not in self.buffers or self.buffers[layer][0].shape[2] < end:
            self._make_room(layer, k, v, start, end)
        kept_k, kept_v = self.buffers[layer]
        kept_k.narrow(2, start, end - start).copy_(k)
        kept_v.narrow(2, start, end - start).copy_(v)
        self.filled[layer] = end
        return kept_k.narrow(2, 0, end), kept_v.narrow(2, 0, end)

    def _make_room(self, layer: int, k: Tensor, v: Tensor, start: int, end: int) -> None:
        size = self._size(end)
        old = self.buffers.get(layer)
        buffers = []
        for index, new in enumerate((k, v)):
            b, g, _, c = new.shape
            buffer = new.new_empty(b, g, size, c)
            if old is not None:
                buffer[:, :, :start] = old[index][:, :, :start]
            buffers.append(buffer)
        self.buffers[layer], self._keys = (buffers[0], buffers[1]), None

    def _size(self, needed: int) -> int:
        size = self.FIRST
        while size < needed:
            size *= 2
        return size

    def rewind(self, length: int) -> None:
        for layer, filled in self.filled.items():
            self.filled[layer] = min(filled, length)

    def select(self, rows: Tensor) -> None:
        for layer, (k, v) in self.buffers.items():
            self.buffers[layer] = (k.index_select(0, rows), v.index_select(0, rows))
        self.select_memories(rows)
        self._keys = None

    def keep_memory(self, layer: int, k: Tensor, v: Tensor) -> None:
        super().keep_memory(layer, k, v)
        self._keys = None

    def fork(self) -> DynamicCache:
        other = copy(self)
        other._keys, other._text = None, object()
        other.buffers = {i: (k.clone(), v.clone()) for i, (k, v) in self.buffers.items()}
        other.filled, other.memories = dict(self.filled), dict(self.memories)
        return other

    def free(self) -> None:
        self.buffers, self.filled, self.memories, self.owners = {}, {}, {}, None
        self._keys, self._text = None, object()

    def step_keys(self) -> Keys | None:
        """Returns where a step of one token finds keys and values, or None: there is no room, or
        another class puts new ones elsewhere (zoo.nn.replay)."""
        if self._keys is None:
            if type(self).append is not DynamicCache.append:
                return None
            self._room = min((k.shape[2] for k, _ in self.buffers.values()), default=0)
            self._keys = Keys(self.buffers, self.memories, text=self._text)
        self._keys.start = self.length
        return self._keys if self._keys.start < self._room else None

    def retry(self, keys: Keys) -> None:
        """Makes ready for the step with these keys once more, of which some layers may have seen
        the token."""
        self.rewind(keys.start)

    def advance(self) -> None:
        """Notes that every layer has one token more, which was put there by others."""
        for layer in self.filled:
            self.filled[layer] += 1


class StaticCache(DynamicCache):
    """Room for `capacity` tokens from the first on: no copies, and addresses that never move (which
    a captured CUDA graph needs). Reads are sliced to what is filled: on a CPU the rest would
    cost."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def _size(self, needed: int) -> int:
        if needed > self.capacity:
            raise ConfigError(
                f"The cache holds {self.capacity} tokens and {needed} are asked for; "
                "make it longer."
            )
        return self.capacity


class FixedCache(StaticCache):
    """A StaticCache that can be read whole. While `place` (1, a tensor) is set, a token goes where
    that says and all `capacity` keys come back, so that neither a shape nor an address nor a number
    of Python's changes from step to step. Who steps masks what is free (zoo.generation.fixed)."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.place: Tensor | None = None

    @property
    def length(self) -> int:
        return super().length if self.place is None else self.capacity - 1

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.place is None:
            return super().append(layer, k, v)
        kept_k, kept_v = self.buffers[layer]
        kept_k.index_copy_(2, self.place, k)
        kept_v.index_copy_(2, self.place, v)
        return kept_k, kept_v

    def _make_room(self, layer: int, k: Tensor, v: Tensor, start: int, end: int) -> None:
        super()._make_room(layer, k, v, start, end)
        for buffer in self.buffers[layer]:  # what is masked is multiplied by 0, and 0 * NaN is NaN
            buffer[:, :, start:].zero_()

    def select(self, rows: Tensor) -> None:
        if any(len(rows) != k.shape[0] for k, _ in self.buffers.values()):
            super().select(rows)
            return
        for kept in (self.buffers, self.memories):  # in place: a graph knows the addresses
            for k, v in kept.values():
                k.copy_(k.index_select(0, rows))
                v.copy_(v.index_select(0, rows))


class SlidingCache(DynamicCache):
    """Keeps what a window of attention can still see. `length` goes on counting."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self.dropped: dict[int, int] = {}  # layer -> tokens that went

    @property
    def length(self) -> int:
        return min((n + self.dropped.get(i, 0) for i, n in self.filled.items()), default=0)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        filled, new = self.filled.get(layer, 0), k.shape[2]
        useless = max(filled - (self.window - 1), 0)
        if useless and filled + new > 2 * self.window:  # move the window to the front, rarely
            for buffer in self.buffers[layer]:
                buffer[:, :, : filled - useless] = buffer[:, :, useless:filled].clone()
            self.filled[layer] = filled - useless
            self.dropped[layer] = self.dropped.get(layer, 0) + useless
        k, v = super().append(layer, k, v)
        seen = min(k.shape[2], self.window - 1 + new)
        return k[:, :, -seen:], v[:, :, -seen:]

    def rewind(self, length: int) -> None:
        for layer, filled in self.filled.items():
            gone = self.dropped.get(layer, 0)
            if length < gone:
                raise ConfigError(
                    f"A sliding cache of {self.window} tokens cannot go back to token {length}."
                )
            self.filled[layer] = min(filled, length - gone)

    def fork(self) -> SlidingCache:
        other = super().fork()
        assert isinstance(other, SlidingCache)
        other.dropped = dict(self.dropped)
        return other

    def free(self) -> None:
        super().free()
        self.dropped = {}


class Int8Cache(_Memories):
    """Keys and values as 8-bit numbers with one scale per token and head; expanded when read."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers, self.scales = DynamicCache(), DynamicCache()

    @property
    def length(self) -> int:
        return self.numbers.length

    @property
    def nbytes(self) -> int:
        held = sum(t.nbytes for pair in self.memories.values() for t in pair)
        return self.numbers.nbytes + self.scales.nbytes + held

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        (k8, k_scale), (v8, v_scale) = quantise(k), quantise(v)
        numbers = self.numbers.append(layer, k8, v8)
        scales = self.scales.append(layer, k_scale, v_scale)
        return tuple(n.to(s.dtype) * s for n, s in zip(numbers, scales, strict=True))  # type: ignore[return-value]

    def rewind(self, length: int) -> None:
        self.numbers.rewind(length)
        self.scales.rewind(length)

    def select(self, rows: Tensor) -> None:
        self.numbers.select(rows)
        self.scales.select(rows)
        self.select_memories(rows)

    def fork(self) -> Int8Cache:
        other = Int8Cache()
        other.numbers, other.scales = self.numbers.fork(), self.scales.fork()
        other.memories, other.owners = dict(self.memories), self.owners
        return other

    def free(self) -> None:
        self.numbers.free()
        self.scales.free()
        self.memories, self.owners = {}, None


# what a person may ask for by name; the others belong to who decodes
CACHES: dict[str, type[DynamicCache] | type[Int8Cache]] = {"full": DynamicCache, "int8": Int8Cache}
