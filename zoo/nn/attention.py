"""Multi-head attention with grouped keys, self or cross. The projections; what follows them is
the kernel's."""

# b batch, n tokens, m memory tokens, d width, h heads, g key heads, c channels of a head

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.nn.grid import GridRule
from zoo.nn.kernel import BLOCK_QUERIES, attention_weights
from zoo.nn.linear import Linear
from zoo.nn.mask import Mask
from zoo.nn.position import rotate
from zoo.nn.schema import AttentionConfig
from zoo.registry import build

if TYPE_CHECKING:
    from zoo.nn.cache import Cache

__all__ = ["Attention", "Context", "Record"]


@dataclass
class Record:
    """What a caller wants to look at: ask before the call, read after it. Costs nothing when
    absent."""

    attention: bool = False  # the weights of every attention, by layer
    layers: frozenset[int] = frozenset()  # outputs of these blocks; -1 is the stack's input
    weights: dict[int, Tensor] = field(default_factory=dict)  # layer -> b h n k
    cross_weights: dict[int, Tensor] = field(default_factory=dict)  # layer -> b h n m
    hidden: dict[int, Tensor] = field(default_factory=dict)  # layer -> b n d


@dataclass
class Context:
    """What every layer of one call shares."""

    mask: Mask = field(default_factory=Mask)
    angles: tuple[Tensor, Tensor] | None = None  # cos and sin for rotary positions
    bias: Tensor | None = None  # b|1 h n k, added to the scores
    where: object | None = None  # zoo.nn.position.Where
    cache: Cache | None = None
    memory: Tensor | None = None  # b m d, what cross-attention reads
    memory_mask: Mask = field(default_factory=Mask)
    condition: Tensor | None = None  # b e, what adaptive norms read
    record: Record | None = None
    source: Tensor | None = (
        None  # b k d, where self-attention reads keys and values when not from x (XLNet)
    )
    types: tuple[Tensor, Tensor] | None = (
        None  # segments of the queries (b n) and of the keys (b k)
    )
    places: Tensor | None = None  # b n, each query's index among the keys; None: they are the last
    key_angles: tuple[Tensor, Tensor] | None = None  # as `angles`, where keys are from elsewhere
    # what a position worked out once for all layers of the call
    kept: dict = field(default_factory=dict)


class Attention(nn.Module):
    """softmax(q k^T * scale + bias) v, projected. q, k and v are one matrix (rows q | k | v) in
    self-attention;
    in cross-attention q reads the stack and k, v (one matrix) read the memory, once per memory
    when cached."""

    def __init__(
        self,
        config: AttentionConfig,
        width: int,
        *,
        layer: int = 0,
        cross: bool = False,
        memory_width: int | None = None,
        needs: frozenset[str] = frozenset(),
        position: nn.Module | None = None,
        std: float = 0.02,
        depth: int = 0,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.shape(width)
        self.layer, self.cross = layer, cross
        self.scale = config.scale or self.head_dim**-0.5
        self.window = config.window
        self.dropout = config.dropout
        self.clip = config.clip
        self.pattern, self.pattern_size = config.pattern, config.pattern_size
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        if cross:
            self.q = Linear(width, queries, config.qkv_bias, std)
            self.kv = Linear(memory_width or width, 2 * keys, config.qkv_bias, std)
        else:
            self.qkv = Linear(width, queries + 2 * keys, config.qkv_bias, std)
        self.out = Linear(
            queries, width, config.out_bias, std / math.sqrt(2 * depth) if depth else std
        )
        if config.qk_norm is not None:
            self.q_norm = build(config.qk_norm, width=self.head_dim)
            self.k_norm = build(config.qk_norm, width=self.head_dim)
        self.has_qk_norm = config.qk_norm is not None
        self.relative: Any = position  # a part of the position that has parameters in every layer
        self.attend_values = getattr(position, "attend_values", None)
        self.kernel = build(config.kernel)
        own = {"window"} if self.window else set()
        own |= {"grid"} if self.pattern != "full" else set()
        self.kernel.needs(set(needs) | own)

    def forward(self, x: Tensor, context: Context) -> Tensor:  # b n d -> b n d
        kind, low = x.dtype, self._attends_in(x, context)
        if self.cross:
            q, k, v = self._read_memory(x, context, low)
            mask, bias = context.memory_mask, None
            low = low if k.dtype == low else None  # it may have been kept otherwise
        else:
            # products answer in what they are given
            given = x if low is None or self.has_qk_norm else x.to(low)
            q, k, v = self._project(given, context)
            if self._reads_rows(context):
                return self.out(self._attend_rows(q, k, v, context).transpose(1, 2).flatten(2))
            if context.cache is not None:
                k, v = context.cache.append(self.layer, k, v)
            mask, bias = context.mask, context.bias
            if bias is not None and bias.shape[-1] > k.shape[2]:  # a sliding cache let keys go
                bias = bias[..., -k.shape[2] :]
            if self.window is not None:
                mask = mask.windowed(self.window)
            if self.pattern != "full":
                mask = mask.on_grid(self._rule(context))
        if low is not None:
            q, k, v = q.to(low), k.to(low), v.to(low)
        dropout = self.dropout if self.training else 0.0
        blocks = getattr(self.relative, "attend_blocks", None)
        if blocks is not None and self.relative.can_block(q, k, mask, bias, context):
            out = blocks(q, k, v, mask, self.kernel, self.scale, dropout, context)
            return self.out(out.transpose(1, 2).flatten(2))
        if self.relative is not None:
            extra = self.relative(q, k, context, self.scale)
            bias = extra if bias is None else bias + extra
        if context.record is not None and context.record.attention:
            kept = context.record.cross_weights if self.cross else context.record.weights
            kept[self.layer] = attention_weights(q, k, mask, bias, self.scale).detach()
        if self.attend_values is not None:  # positions in the values, which no fused kernel knows
            out = self.attend_values(q, k, v, mask, bias, self.scale, dropout)
        else:
            out, _ = self.kernel.attend(q, k, v, mask, bias, self.scale, None, dropout)
        out = self.out(out.transpose(1, 2).flatten(2))
        return out if low is None else out.to(kind)

    def _attends_in(self, x: Tensor, context: Context) -> torch.dtype | None:
        """Returns the type in which attention loses nothing of what products of this layer's form
        say, and is faster; None where it is theirs, or more than a mask comes between them."""
        form = self.out.form
        low = None if form is None else form.attends_in()
        if low is None or self.relative is not None or context.record is not None:
            return None
        whole = context.cache is None and x.shape[1] >= BLOCK_QUERIES and context.bias is None
        plain = self.window is None and self.pattern == "full"
        return low if plain and (self.cross or whole) else None

    @property
    def packs(self) -> bool:
        """Whether sequences may lie one after the other in one row, with keys of their own."""
        return self.relative is None and self.pattern == "full"

    def _rule(self, context: Context) -> GridRule:
        where = context.where
        grid = getattr(where, "grid", None)
        if grid is None:
            raise ConfigError(f"attention.pattern: {self.pattern!r} is for codes that have a grid.")
        return GridRule(self.pattern, self.pattern_size, tuple(grid), where.prefix)  # type: ignore[attr-defined]

    def _reads_rows(self, context: Context) -> bool:
        """Returns whether each sequence attends to keys of its own, none of them padding."""
        return (
            getattr(context.cache, "by_row", False)
            and self.relative is None
            and self.pattern == "full"
            and context.record is None
            and context.mask.rules <= {"causal", "padding"}
        )

    def _attend_rows(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        cache: Any = context.cache
        mask, found = context.mask.of_row(self.window), []
        cache.write(self.layer, k, v)
        if cache.ragged is None and context.bias is None and mask.rules <= {"causal", "window"}:
            slots, where = cache.pool.slots[self.layer], cache.where()
            together = self.kernel.attend_slots(q, slots, where, self.scale, self.window)
            if together is not None:
                return together
        axis = 0 if cache.ragged is None else 2
        own = zip(q.split(cache.ragged or 1, axis), cache.rows(self.layer), strict=True)
        for row, (queries, (keys, values)) in enumerate(own):
            bias = context.bias
            if bias is not None:
                bias = bias[row % len(bias), None, ..., -keys.shape[2] :]
            out, _ = self.kernel.attend(queries, keys, values, mask, bias, self.scale)
            found.append(out)
        return torch.cat(found, axis) if len(found) > 1 else found[0]

    def _project(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Returns q (b h n c), k and v (b g k c), normed and turned: all from x, or keys and values
        from another sequence."""
        angles, source = context.angles, context.source
        if source is None:
            heads, groups = self.heads, self.kv_heads
            qkv = self._heads(self.qkv(x))  # b h+2g n c
            if angles is None or self.has_qk_norm or context.key_angles is not None:
                q, k, v = qkv.split_with_sizes([heads, groups, groups], 1)
            else:  # queries and keys turn together, at half the calls
                qk, v = qkv.split_with_sizes([heads + groups, groups], 1)
                q, k = rotate(qk, *angles).split_with_sizes([heads, groups], 1)
                return q, k, v
        else:
            q, k, v = self._project_apart(x, source)
        if self.has_qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = rotate(q, *angles), rotate(k, *(context.key_angles or angles))
        return q, k, v

    def _project_apart(self, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = self.heads * self.head_dim
        q, kv = self.qkv.rows(x, 0, rows), self.qkv.rows(source, rows, None)
        q = q.reshape(*q.shape[:2], self.heads, self.head_dim).transpose(1, 2)
        k, v = kv.reshape(*kv.shape[:2], -1, self.head_dim).transpose(1, 2).chunk(2, dim=1)
        return q, k, v

    def _heads(self, qkv: Tensor) -> Tensor:  # b n (h+2g)c -> b h+2g n c
        b, n, _ = qkv.shape
        if self.clip is not None:
            qkv = qkv.clamp(-self.clip, self.clip)
        return qkv.view(b, n, -1, self.head_dim).transpose(1, 2)

    def _read_memory(
        self, x: Tensor, context: Context, low: torch.dtype | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, self.head_dim).transpose(1, 2)
        cached = context.cache.memory(self.layer) if context.cache is not None else None
        if cached is not None:
            k, v = cached
        else:
            assert context.memory is not None, "cross-attention without a memory"
            kv = self.kv(context.memory)
            kv = kv.view(kv.shape[0], kv.shape[1], 2 * self.kv_heads, self.head_dim)
            k, v = kv.transpose(1, 2).chunk(2, dim=1)
            if self.has_qk_norm:
                k = self.k_norm(k)
            if context.cache is not None:
                if low is not None:
                    k, v = k.to(low), v.to(low)
                k, v = self.kernel.keep(k), self.kernel.keep(v)
                context.cache.keep_memory(self.layer, k, v)
        return (self.q_norm(q) if self.has_qk_norm else q), k, v
