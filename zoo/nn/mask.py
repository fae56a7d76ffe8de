"""Masks as rules, not matrices: a dense mask costs n^2, and no kernel could see through it.

True always means "may be seen". Queries are the last q of the k keys, so that a mask reads the
same with a cache.
"""

# b batch, h heads, q queries, k keys

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from zoo.nn.grid import GridRule

__all__ = ["Mask"]


@dataclass(frozen=True)
class Mask:
    """Which keys each query may see: every rule that is set must allow it (a prefix widens the
    causal rule)."""

    causal: bool = False  # no key after the query
    window: int | None = None  # only the last so many keys, the query's own among them
    prefix: Tensor | None = (
        None  # (b) so many real tokens at the start are seen by all, also causally
    )
    padding: Tensor | None = None  # (b k) bool: True marks real tokens
    segments: Tensor | None = (
        None  # (b k) whole numbers: only keys of the query's own segment are seen
    )
    grid: GridRule | None = None  # which codes of a grid a code sees
    dense: Tensor | None = None  # (b|1 h|1 q k) bool: the last resort
    # (1) where the one query stands, if it is not the last key: a cache may have free room behind
    place: Tensor | None = None
    # What was worked out once serves every layer of a call: matrices, and masks derived from this
    # one.
    _kept: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def also(self, **rules: object) -> Mask:
        """Returns this mask with some rules replaced."""
        return replace(self, **rules)  # type: ignore[arg-type]

    def windowed(self, window: int) -> Mask:
        """Returns this mask with a window; the same object for the same window."""
        if window not in self._kept:
            self._kept[window] = self.also(window=window)
        return self._kept[window]

    def on_grid(self, rule: GridRule) -> Mask:
        """Returns this mask with a rule on a grid; the same object for the same rule."""
        if rule not in self._kept:
            self._kept[rule] = self.also(grid=rule)
        return self._kept[rule]

    def of_row(self, window: int | None) -> Mask:
        """Returns the mask of one row whose keys are all real; the same object for the same
        window."""
        key = ("row", window)
        if key not in self._kept:
            self._kept[key] = self.also(padding=None, window=window)
        return self._kept[key]

    @property
    def rules(self) -> frozenset[str]:
        """Returns the names of the rules that are set, for a kernel to check against what it can
        do."""
        if "rules" in self._kept:
            return self._kept["rules"]
        values = (
            ("causal", self.causal or None),
            ("window", self.window),
            ("prefix", self.prefix),
            ("padding", self.padding),
            ("segments", self.segments),
            ("grid", self.grid),
            ("dense", self.dense),
        )
        self._kept["rules"] = frozenset(name for name, value in values if value is not None)
        return self._kept["rules"]

    def matrix(
        self, queries: int, keys: int, device: torch.device, bias: Tensor | None = None
    ) -> Tensor | None:
        """Returns the mask as a matrix (b|1 h|1 q k): bool, or None when every query sees every
        key.

        With a `bias` on the scores the matrix is a float one: the bias, and -inf where nothing
        may be seen.
        """
        size = (queries, keys, device)
        if size not in self._kept:
            self._kept[size] = self._allowed(queries, keys, device)
        allowed = self._kept[size]
        if bias is None or allowed is None:
            return allowed if bias is None else bias
        # One slot: a bias of the whole stack is met again in the next layer, a layer's own is not.
        last, joined = self._kept.get("bias", (None, None))
        if last is not bias:
            joined = bias.masked_fill(~allowed, float("-inf"))
            if not joined.requires_grad:  # or recomputing a block would not do what it did before
                self._kept["bias"] = (bias, joined)
        return joined

    def pieces(
        self, queries: int, keys: int, device: torch.device, bias: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None, int | None, int | None]:
        """Returns the mask, and a bias on the scores, in the pieces that a kernel can see through:

        what is added to the scores (b|1 h|1 q|1 k, fp32), in memory key by key; which keys are real
        (b|1 k, None: all); and how many keys before and after its own place a query sees (None:
        all). What is no window and no padding is added as -inf.
        """
        if self.rules <= {"causal", "window", "padding"} and self.place is None:
            real = None if self.padding is None else self.padding[:, -keys:]
            before = None if self.window is None else self.window - 1
            return self._added(bias), real, before, 0 if self.causal else before
        return self._added(self.matrix(queries, keys, device, bias)), None, None, None

    def _added(self, found: Tensor | None) -> Tensor | None:
        if found is None:
            return None
        last, turned = self._kept.get("added", (None, None))  # one slot, as in `matrix`
        if last is not found:
            if found.dtype == torch.bool:
                zeros = torch.zeros_like(found, dtype=torch.float32)
                turned = zeros.masked_fill_(~found, float("-inf"))
            else:
                turned = found.float()
            turned = turned.transpose(2, 3).contiguous().transpose(2, 3)
            self._kept["added"] = (found, turned)
        return turned

    def block(
        self, start: int, stop: int, first: int, last: int, device: torch.device
    ) -> Tensor | None:
        """Returns which of the keys [first, last) the queries [start, stop) of the same sequence
        may see (b|1 1 q|1 k), or None for all; knows the rules causal, window and padding."""
        allowed: Tensor | None = None
        if self.causal or self.window is not None:
            query = torch.arange(start, stop, device=device)
            distance = query[:, None] - torch.arange(first, last, device=device)  # q k
            near = distance.abs() < (self.window or last + stop)
            allowed = (near & (distance >= 0) if self.causal else near)[None]
        if self.padding is not None:
            real = self.padding[:, None, first:last]
            allowed = real if allowed is None else allowed & real
        return None if allowed is None else allowed[:, None]

    def _allowed(self, queries: int, keys: int, device: torch.device) -> Tensor | None:
        allowed: Tensor | None = None
        if self.causal or self.window is not None:
            key = torch.arange(keys, device=device)
            last = torch.arange(keys - queries, keys, device=device)
            query = last if self.place is None else self.place
            distance = query[:, None] - key[None, :]  # q k
            if self.causal:
                allowed = distance >= 0
                if self.prefix is not None:  # b 1 k: keys inside the prefix are open to everyone
                    # counted in real tokens, so that left padding moves it along
                    place = key if self.padding is None else self.padding.cumsum(-1) - 1
                    allowed = allowed[None] | (place < self.prefix[:, None])[:, None]
                if self.window is not None:
                    allowed = allowed & (distance < self.window)
            else:
                assert self.window is not None
                allowed = distance.abs() < self.window
        if self.segments is not None:
            same = self.segments[:, -queries:, None] == self.segments[:, None, -keys:]  # b q k
            allowed = same if allowed is None else allowed & same
        if self.padding is not None:
            real = self.padding[:, None, -keys:]  # b 1 k; a sliding cache has let the first ones go
            allowed = real if allowed is None else allowed & real
        if self.grid is not None:
            seen = self.grid.matrix(device)[keys - queries : keys, :keys]
            allowed = seen if allowed is None else allowed & seen
        if allowed is not None:
            allowed = allowed.reshape(-1, 1, *allowed.shape[-2:])  # b|1 1 q|1 k
        if self.dense is not None:
            allowed = self.dense if allowed is None else allowed & self.dense
        return allowed
