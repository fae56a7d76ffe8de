"""What a piece of a model does with one token, noted once (`recording.py`) and played in one call
from then on: a graph, as CUDA has them, for a CPU.

From step to step the input changes, which is copied to where the tape reads it; the number of keys,
with the place of the new ones; the bias on the scores; and where keys and values are, of the tokens
before and of a memory.
"""

# b batch, h heads, g key heads, n keys, s keys that there is room for, c channels of a head

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any
from weakref import ref as weakref

from torch import Tensor

from zoo.nn import native
from zoo.nn.native.calls import Store
from zoo.nn.native.recording import Keys, Recording

__all__ = ["Tape"]


class Entry(ctypes.Structure):
    _fields_ = [("call", ctypes.c_void_p), ("given", ctypes.c_void_p)]


class Tape:
    """What was noted, to be played."""

    def __init__(self, noted: Recording, inputs: Sequence[Tensor], y: Tensor) -> None:
        self.inputs, self.y, self.calls, self.made = list(inputs), y, noted.calls, noted.made
        self.play, self.turn = noted.found.play, noted.turn
        self.writers, self.readers, self.biased = noted.writers, noted.readers, noted.biased
        entries: list[Any] = [
            (ctypes.cast(call, ctypes.c_void_p).value, ctypes.addressof(given))
            for call, given in noted.calls
        ]
        self.entries = (Entry * len(entries))(*entries)
        self.address = ctypes.addressof(self.entries)
        # of each sequence: where its grown keys begin, how many they are, its new token's slot
        self.offsets, self.lengths, self.slots = ((ctypes.c_int64 * len(y))() for _ in range(3))
        self.fixed = [x for tensors in noted.fixed.values() for x in tensors]
        # held, so that what is read in a step is there even if a tensor was given other memory
        self.storages = [x.untyped_storage() for x in self.fixed]
        self.where = [x.data_ptr() for x in self.fixed]
        self.bound: Any = None  # a weak reference to the keys that it reads; a tape outlives caches
        self.places: list[Any] = []  # where those of memories are
        self.step = 0  # from one grown key to the next

    @property
    def stands(self) -> bool:
        """Whether what it reads beside its inputs is where it was."""
        return [x.data_ptr() for x in self.fixed] == self.where

    def takes(self, keys: Keys) -> bool:
        """Has it read these keys and values; returns whether it can."""
        if self.bound is None or self.bound() is not keys:
            if not self._fits(keys):
                return False
            self._bind(keys)
            self.bound = weakref(keys)
        return True

    def _fits(self, keys: Keys) -> bool:
        """Returns whether keys and values are as those that it was made for: each token's side by
        side, and the tokens of every layer as far apart."""
        pairs = {True: keys.grown, False: keys.kept}
        steps = set()
        for call, grows, layer, dtype in self.readers:
            k, v = pairs[grows].get(layer, (None, None))
            rows = 1 if grows and keys.slots is not None else call.b
            if k is None or v is None or k.shape[:2] != (rows, call.g) or k.shape[3] != call.c:
                return False
            if k.stride() != v.stride() or k.stride(3) != 1:
                return False
            if not k.dtype == v.dtype == dtype or k.device.type != "cpu":
                return False
            steps.add((k.stride(0), k.stride(2)) if grows else None)
        return len(steps - {None}) <= 1

    def _bind(self, keys: Keys) -> None:
        pairs, self.places = {True: keys.grown, False: keys.kept}, []
        for write, layer, index in self.writers:
            held = keys.grown[layer][index]
            size = held.element_size()
            if isinstance(write, Store):
                write.slots, write.slot = held.data_ptr(), ctypes.addressof(self.slots)
                write.slots_g, write.slots_s = held.stride(1) * size, held.stride(2) * size
            else:
                write.y, write.turn_step = held.data_ptr(), held.stride(2)
                write.y_step[:] = [*held.stride()[:2], 0, held.stride(3)]
        for call, grows, layer, _ in self.readers:
            k, v = pairs[grows][layer]
            row, head, token, _ = k.stride()
            call.k, call.v, call.head, call.token = k.data_ptr(), v.data_ptr(), head, token
            if grows:
                offsets, lengths, self.step = self.offsets, self.lengths, token
                self.offsets[:] = [row * index for index in range(call.b)]
            else:
                places = native.Places(range(call.b), [k.shape[2]] * call.b)
                offsets, lengths = places.offsets(row), places.lengths
                self.places.append((offsets, lengths))
            call.offset, call.length = ctypes.addressof(offsets), ctypes.addressof(lengths)

    def __call__(self, inputs: Sequence[Tensor], keys: Keys, bias: Tensor | None) -> Tensor:
        """Returns what the piece gives for other inputs of the same shapes, and keys that it takes.

        Raises: MemoryError.
        """
        for held, given in zip(self.inputs, inputs, strict=True):
            held.copy_(given)
        if keys.slots is not None and keys.where is not None:
            self.slots[:] = keys.slots.tolist()
            self.offsets[:] = list(keys.where.offsets(self.step))
            self.lengths[:] = list(keys.where.lengths)
        else:
            self.turn[0] = keys.start
            self.lengths[:] = [keys.start + 1] * len(self.lengths)
        if bias is not None:
            address, step = bias.data_ptr(), bias.stride(1)
            for attention in self.biased:
                attention.bias, attention.bias_head = address, step
        count = len(self.entries)
        if self.play(self.address, count) < count:
            raise MemoryError("No memory for a step's products.")
        return self.y.clone()
