"""Steps of one token, played from a tape (zoo.nn.native.tape) where that is possible: what Python
does between the calls of a step costs as much as a small model's products.

A stack has a tape for each kind of step, made at the second one of that kind, and plays it as long
as nothing has changed that it was made from, for whatever cache. Each thread has its own: what lies
between two calls is kept in the tape. The first of a stack is held against the stack itself at two
steps, since only then it is known that nothing but what may change did.
"""

# b batch, n tokens, d width

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from zoo.nn import native
from zoo.nn.attention import Context
from zoo.nn.forms import Freezable
from zoo.nn.native.tape import Keys, Recording, Tape, Unknown

__all__ = ["Replay", "step"]

# By how much sums in another order may differ: int8 numbers are rounded once more, bf16 ones always
CLOSE = {torch.float32: 1e-2, torch.bfloat16: 5e-2}
MOST = 4  # kinds of steps that a stack has tapes for
Body = Callable[[Tensor, Context], Tensor]


class Known(threading.local):
    """Of a thread: the replays of each stack."""

    def __init__(self) -> None:
        self.by_stack: WeakKeyDictionary[nn.Module, dict[Any, Replay]] = WeakKeyDictionary()


known = Known()


def step(stack: Any, body: Body, x: Tensor, context: Context) -> Tensor:
    """Returns body(x, context) for one token of each sequence (b 1 d): what a stack does with it.

    `stack.plays` says whether its tapes were found to be right: None before the first one was.
    """
    keys = None if stack.plays is False else _keys(x, context)
    if keys is None:
        return body(x, context)
    replays, kind = known.by_stack.setdefault(stack, {}), _kind(x, context, keys)
    if kind not in replays:
        if len(replays) == MOST:
            del replays[next(iter(replays))]
        replays[kind] = Replay(stack)
    return replays[kind].step(stack, body, x, context, keys)


def _keys(x: Tensor, context: Context) -> Keys | None:
    """Returns the keys and values to play with, or None where a step cannot be played."""
    cache: Any = context.cache
    if context.record is not None or context.condition is not None or not native.reads(x):
        return None
    if context.memory_mask.padding is not None or not hasattr(cache, "keys"):
        return None
    if _get_current_dispatch_mode() is not None:  # somebody wants to see every operator
        return None
    keys: Keys | None = cache.keys()
    # padding is what a sequence among others has; in slots each is by itself
    rules = {"causal"} if keys is None or keys.slots is None else {"causal", "padding"}
    return keys if context.mask.rules <= rules else None


def _kind(x: Tensor, context: Context, keys: Keys) -> tuple[Any, ...]:
    """Returns what a tape depends on beside what it is made from and who may be moved."""
    shapes = tuple((one.shape, one.dtype) for one in _inputs(x, context))
    cache = keys.slots is None, len(keys.kept)
    bias = None if context.bias is None else len(context.bias)
    return *shapes, *cache, bias, torch.get_num_threads()


def _inputs(x: Tensor, context: Context) -> list[Tensor]:
    return [x, *(context.angles or ())]


def _bias(context: Context) -> Tensor | None:
    return None if context.bias is None else context.bias.float().contiguous()


class Replay:
    """A kind of step of a stack, which goes when the stack does: it does not hold it."""

    def __init__(self, stack: nn.Module) -> None:
        modules = list(stack.modules())
        tables: list[dict[str, Any]] = [
            t for m in modules for t in (m._parameters, m._buffers, m._modules)
        ]
        self.tables = [table for table in tables if table]
        self.hooks = [t for m in modules for t in (m._forward_hooks, m._forward_pre_hooks)]
        self.products = [module for module in modules if isinstance(module, Freezable)]
        self.reason = ""  # why there is no tape
        self.found: list[Any] = []  # what the last step was made with
        self.tape: Tape | None = None
        self.made_at: list[int] = []  # how many keys there were when the tape was made

    def step(self, stack: Any, body: Body, x: Tensor, context: Context, keys: Keys) -> Tensor:
        """Returns body(x, context), which is the stack's."""
        if not self._is_as_found():
            self.tape, self.reason, self.found = None, "", self._things()
            return body(x, context)
        if self.tape is None and not self.reason:
            self.tape, self.made_at = self._record(stack, body, x, context, keys), keys.lengths
        if self.tape is None or not self.tape.takes(keys):
            return body(x, context)
        y = self.tape(_inputs(x, context), keys, _bias(context))
        if stack.plays is None:
            exact = body(x, context)
            stack.plays = self._agrees(y, exact, keys)
            return exact
        cache: Any = context.cache
        cache.advance()
        return y

    def _things(self) -> list[Any]:
        """Returns what a tape is made from."""
        values = chain.from_iterable(map(dict.values, self.tables))
        forms = [form for module in self.products for form in (module.form, module.beside)]
        return [*values, *forms]

    def _is_as_found(self) -> bool:
        things, found = self._things(), self.found
        if any(self.hooks) or len(things) != len(found) or not all(map(is_, things, found)):
            return False
        if self.tape is None:
            return True
        return all(copy.is_current for copy in self.copies) and self.tape.stands

    def _record(
        self, stack: nn.Module, body: Body, x: Tensor, context: Context, keys: Keys
    ) -> Tape | None:
        cache: Any = context.cache
        with torch.inference_mode(False):  # or who has left that mode could not write there
            held = [torch.empty(one.shape, dtype=one.dtype) for one in _inputs(x, context)]
        copied = replace(context, bias=_bias(context), kept={})
        if context.angles is not None:
            copied.angles = (held[1], held[2])
        read = chain(held, stack.parameters(), stack.buffers())
        noted = Recording(read, keys, copied.bias)
        try:
            with noted:
                y = body(held[0], copied)
            if len(noted.writers) != 2 * len(keys.grown):
                raise Unknown("Some layers of the cache belong to others.")
        except Unknown as error:
            self.reason = str(error)
            return None
        finally:
            cache.retry(keys)
        beside = (module.beside for module in self.products)
        self.copies = [copy for copy in beside if copy is not None and copy.is_current]
        return Tape(noted, held, y)

    def _agrees(self, y: Tensor, exact: Tensor, keys: Keys) -> bool | None:
        """Returns whether a tape gives what its stack does; None where that says little yet: at the
        step at which it was made."""
        error = float((y - exact).float().norm() / exact.float().norm())
        if error <= CLOSE[y.dtype]:
            return None if keys.lengths == self.made_at else True
        warnings.warn(
            f"A step that was played is off by {error:.2g}, so that this model plays none; please "
            "report which model it is.",
            stacklevel=2,
        )
        return False
