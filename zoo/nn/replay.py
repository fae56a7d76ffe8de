"""Steps of one token, played from a tape (zoo.nn.native.tape) where that is possible: what Python
does between the calls of a step costs as much as a small model's products.

A stack has a tape for each kind of step, made at the second one of that kind, and plays it as long
as nothing has changed that it was made from, for whatever cache. Each thread has its own: what lies
between two calls is kept in the tape. A new one is held against the stack itself at two steps,
since only then it is known that nothing but what may change did.
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

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._python_dispatch import _get_current_dispatch_mode

from zoo.nn import native
from zoo.nn.attention import Context
from zoo.nn.forms import Freezable
from zoo.nn.native.recording import Keys, Recording
from zoo.nn.native.tape import Tape

__all__ = ["Replay", "Replays"]

# By how much a row may differ, whose sums have another order: int8 rounds the inputs of products to
# other numbers where they are between two
CLOSE, CLOSE_INT8, CLOSE_BF16 = 1e-3, 2e-2, 5e-2
MOST = 16  # kinds of steps and threads that a stack has tapes for
Body = Callable[[Tensor, Context], Tensor]


class Replays(dict):  # kind and thread -> Replay
    """How a stack's steps are played. `on` turns it off, for who compares; a copy begins anew."""

    def __init__(self) -> None:
        super().__init__()
        self.on = True

    def step(self, stack: nn.Module, body: Body, x: Tensor, context: Context) -> Tensor:
        """Returns body(x, context), what a stack does with a token of each sequence (b 1 d)."""
        keys = _keys(stack, x, context) if self.on else None
        if keys is None:
            return body(x, context)
        kind = _kind(x, context, keys)
        found = self.get(kind)
        if found is None:
            if len(self) >= MOST:
                self.pop(next(iter(self)), None)
            found = self[kind] = Replay()
        return found.step(stack, body, x, context, keys)

    def __reduce__(self) -> tuple[Any, ...]:
        return Replays, ()


def _keys(stack: nn.Module, x: Tensor, context: Context) -> Keys | None:
    """Returns the keys and values to play with, or None where a step cannot be played."""
    cache: Any = context.cache
    if stack.training or context.record is not None or context.condition is not None:
        return None
    if not native.reads(x) or context.memory_mask.padding is not None:
        return None
    if _get_current_dispatch_mode() is not None or _has_any_global_hook():
        return None  # somebody wants to see every operator or module
    if not hasattr(cache, "step_keys"):
        return None
    keys: Keys | None = cache.step_keys()
    # padding is what a sequence among others has; in slots each is by itself
    rules = {"causal"} if keys is None or keys.slots is None else {"causal", "padding"}
    return keys if context.mask.rules <= rules else None


def _kind(x: Tensor, context: Context, keys: Keys) -> tuple[Any, ...]:
    """Returns what a tape depends on beside what it is made from and who may be moved."""
    shapes = [(one.shape, one.dtype) for one in _inputs(x, context)]
    cache = keys.slots is None, len(keys.grown), len(keys.kept)
    bias = None if context.bias is None else len(context.bias)
    return *shapes, *cache, bias, torch.get_num_threads(), threading.get_ident()


def _inputs(x: Tensor, context: Context) -> list[Tensor]:
    return [x, *(context.angles or ())]


def _bias(context: Context) -> Tensor | None:
    return None if context.bias is None else context.bias.float().contiguous()


class Made:
    """What a stack is made from now, to be compared with what it was: when a text begins,
    everything that Python knows of its parts; from one step of a text to the next, hooks and the
    weights that have copies. Whatever is looked at has left the processor's cache since, and a
    thousand objects take as long as half a layer of GPT-2."""

    def __init__(self, stack: nn.Module) -> None:
        modules = list(stack.modules())
        self.hooks = [t for m in modules for t in (m._forward_hooks, m._forward_pre_hooks)]
        tables: list[Any] = [(vars(m), m._parameters, m._buffers, m._modules) for m in modules]
        # but for the first, the stack's own, in which this will lie
        self.tables: list[dict[str, Any]] = list(chain.from_iterable(tables))[1:]
        self.products = [module for module in modules if isinstance(module, Freezable)]
        self.copies: list[Any] = []  # beside weights, that the tape reads
        self.values, self.panels = self._values(stack), self._panels()

    def is_current(self, stack: nn.Module) -> bool:
        """Returns whether all is as it was."""
        return _same(self._values(stack), self.values)

    @property
    def copies_are_current(self) -> bool:
        """Whether weights that have copies are what they were."""
        return all(copy.is_current for copy in self.copies)

    @property
    def has_new_panels(self) -> bool:
        """Whether products may be had from C that could not when this was made."""
        return not _same(self._panels(), self.panels)

    def _values(self, stack: nn.Module) -> list[Any]:
        own = [x for x in vars(stack).values() if not isinstance(x, Replays)]
        return [*own, *chain.from_iterable(map(dict.values, self.tables))]

    def _panels(self) -> list[Any]:
        return [getattr(module.form, "panels", None) for module in self.products]


def _same(some: list[Any], others: list[Any]) -> bool:
    return len(some) == len(others) and all(map(is_, some, others))


class Replay:
    """A kind of step."""

    def __init__(self) -> None:
        self.made: Made | None = None
        self.tape: Tape | None = None
        self.reason = ""  # why there is no tape
        # the texts that were looked at, how far they were, and what serves them
        self.texts: object = None
        self.start = 0
        self.serving: Tape | None = None
        self.made_at: list[int] = []  # how many keys there were when the tape was made
        self.proven = False

    def step(self, stack: nn.Module, body: Body, x: Tensor, context: Context, keys: Keys) -> Tensor:
        """Returns body(x, context), which is the stack's."""
        made = self.made
        if made is not None and any(made.hooks):  # who looks at a part must be called
            return body(x, context)
        if made is None or not self._go_on(keys) or not made.copies_are_current:
            self.serving = self._looked_up(stack, body, x, context, keys)
            settled = self.serving is not None or self.reason
            self.texts = keys.texts if settled else None
        self.start = keys.start
        if self.serving is None or not self.serving.takes(keys):
            return body(x, context)
        y = self.serving(_inputs(x, context), keys, _bias(context))
        if self.proven:
            cache: Any = context.cache
            cache.advance()
            return y
        exact = body(x, context)
        self._prove(y, exact, keys)
        return exact

    def _go_on(self, keys: Keys) -> bool:
        """Returns whether these are the texts that were looked at, and not begun anew."""
        same = self.texts is not None and self.texts == keys.texts
        return same and keys.start >= self.start

    def _looked_up(
        self, stack: nn.Module, body: Body, x: Tensor, context: Context, keys: Keys
    ) -> Tape | None:
        """Returns the tape that serves now, a new one if need be."""
        made = self.made
        if made is None or not made.is_current(stack) or not made.copies_are_current:
            self.tape, self.reason, self.made = None, "", Made(stack)
            return None
        if self.tape is not None and not self.tape.stands:
            self.tape = None
        if self.reason and made.has_new_panels:
            self.reason = ""
        if self.tape is None and not self.reason:
            self._record(stack, body, x, context, keys)
        return self.tape

    def _record(
        self, stack: nn.Module, body: Body, x: Tensor, context: Context, keys: Keys
    ) -> None:
        """Makes the tape, or notes why there can be none."""
        cache: Any = context.cache
        with torch.inference_mode(False):  # or who has left that mode could not write there
            held = [torch.empty(one.shape, dtype=one.dtype) for one in _inputs(x, context)]
        copied = replace(context, bias=_bias(context), kept={})
        if context.angles is not None:
            copied.angles = (held[1], held[2])
        self.made, self.made_at, self.proven = Made(stack), keys.lengths, False
        noted = Recording(chain(held, stack.parameters(), stack.buffers()), keys, copied.bias)
        try:
            with noted:
                y = body(held[0], copied)
            if len(noted.writers) == 2 * len(keys.grown):
                self.tape = Tape(noted, held, y)
            else:
                self.reason = "Some layers of the cache belong to others."
        except Exception as error:  # if there is something wrong, the stack itself will say so
            self.reason = str(error) or repr(error)
        finally:
            cache.retry(keys)
        beside = (module.beside for module in self.made.products)
        self.made.copies = [copy for copy in beside if copy is not None and copy.is_current]

    def _prove(self, y: Tensor, exact: Tensor, keys: Keys) -> None:
        """Notes whether the tape gives what the stack does, which says little at the step at which
        it was made; takes it away if not."""
        assert self.made is not None
        gap, size = (x.float().flatten(1).norm(dim=1) for x in (y - exact, exact))
        if not bool((size > 0).all()) or not bool(size.isfinite().all()):
            return
        rounds = any(m.form is not None and not m.form.exact for m in self.made.products)
        low = CLOSE_BF16 if y.dtype == torch.bfloat16 else CLOSE_INT8 if rounds else CLOSE
        error = float((gap / size).max())
        if error <= low:
            self.proven = keys.lengths != self.made_at
            return
        self.tape = self.serving = None
        self.reason = "It gave other numbers."
        warnings.warn(
            f"A step that was played is off by {error:.2g}, so that this model plays none of its "
            "kind; please report which model it is.",
            stacklevel=2,
        )
