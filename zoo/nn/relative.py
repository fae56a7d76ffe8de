"""Positions that act on the scores through learned weights: T5's buckets, Shaw's tables, Swin's
network of offsets, Transformer-XL's sinusoids."""

# b batch, h heads, q queries, k keys, c channels of a head, d width, r distances, a axes of a grid

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.nn.kernel import attention_weights
from zoo.nn.linear import Linear, fill_normal_
from zoo.nn.mask import Mask
from zoo.nn.position import Geometry, Position, Where
from zoo.nn.schema import (
    BucketPositionConfig,
    ContinuousPositionConfig,
    RelativePositionConfig,
    ShawPositionConfig,
)

if TYPE_CHECKING:
    from zoo.nn.attention import Context

__all__ = ["BucketPosition", "ContinuousPosition", "RelativePosition", "ShawPosition", "buckets"]

# Scores of distances that are in memory at once: 16 MB in fp32, what processors cache.
BLOCK_SCORES = 1 << 22
# Distances up to which buckets are looked up: worked out, they take longer than a layer.
TABLED = 1 << 16


# -- T5 --------------------------------------------------------------------------------------------


def buckets(distance: Tensor, count: int, max_distance: int, causal: bool) -> Tensor:
    """Returns the bucket of each distance (key - query): exact near by, logarithmic further off."""
    if torch.compiler.is_compiling() or max_distance > TABLED:
        return _buckets(distance, count, max_distance, causal)
    known = _table(count, max_distance, causal, distance.device)
    return known[distance.clamp(-max_distance, max_distance) + max_distance]


@cache
def _table(count: int, most: int, causal: bool, device: torch.device) -> Tensor:
    """Returns the bucket of each distance from -most to most, beyond which none changes."""
    with torch.inference_mode(False):
        return _buckets(torch.arange(-most, most + 1, device=device), count, most, causal)


def _buckets(distance: Tensor, count: int, max_distance: int, causal: bool) -> Tensor:
    bucket = torch.zeros_like(distance)
    if causal:
        distance = (-distance).clamp(min=0)
    else:
        count //= 2
        bucket = (distance > 0).long() * count
        distance = distance.abs()
    exact = count // 2
    far = torch.log(distance.float().clamp(min=1) / exact) / math.log(max_distance / exact)
    far = (exact + (far * (count - exact)).long()).clamp(max=count - 1)
    return bucket + torch.where(distance < exact, distance, far)


class BucketTable(nn.Module):
    """A bias for each bucket and head."""

    def __init__(self, config: BucketPositionConfig, geometry: Geometry) -> None:
        super().__init__()
        self.config, self.causal = config, geometry.causal
        self.std = geometry.width**-0.5  # as T5 initialises it
        self.weight = nn.Parameter(torch.empty(config.buckets, geometry.heads))

    def reset_parameters(self) -> None:
        fill_normal_(self.weight, self.std)

    def biases(self, where: Where, dtype: torch.dtype) -> Tensor:  # -> b|1 h q k
        distance = where.keys[:, None, :] - where.queries[:, :, None]  # b|1 q k
        bucket = buckets(distance, self.config.buckets, self.config.max_distance, self.causal)
        # in the order in which attention reads it: through strides it takes up to twice the time
        return F.embedding(bucket, self.weight).permute(0, 3, 1, 2).to(dtype).contiguous()

    def forward(self, q: Tensor, k: Tensor, context: Context, scale: float) -> Tensor:
        where: Any = context.where
        return self.biases(where, q.dtype)


class BucketPosition(Position):
    """One table for the stack, or one in every layer."""

    def __init__(self, config: BucketPositionConfig, geometry: Geometry) -> None:
        super().__init__()
        self.config, self.geometry = config, geometry
        if not config.per_layer:
            self.table = BucketTable(config, geometry)

    def bias(self, where: Where, dtype: torch.dtype) -> Tensor | None:
        return None if self.config.per_layer else self.table.biases(where, dtype)

    def layer_part(self) -> nn.Module | None:
        return BucketTable(self.config, self.geometry) if self.config.per_layer else None


# -- Shaw ------------------------------------------------------------------------------------------


class ShawPosition(Position):
    """q . (k + A[distance]) and weights . (v + B[distance]); tables per layer, shared by the
    heads."""

    def __init__(self, config: ShawPositionConfig, geometry: Geometry) -> None:
        super().__init__()
        self.config, self.geometry = config, geometry

    def layer_part(self) -> nn.Module:
        part = ShawTables if self.config.values else ShawKeys
        return part(self.config, self.geometry)


class ShawKeys(nn.Module):
    """The key table alone; works with every kernel that takes a bias."""

    def __init__(self, config: ShawPositionConfig, geometry: Geometry) -> None:
        super().__init__()
        self.distance, self.std = config.distance, geometry.std
        self.keys = nn.Parameter(torch.empty(2 * config.distance + 1, geometry.head_dim))

    def reset_parameters(self) -> None:
        fill_normal_(self.keys, self.std)

    def rows(
        self, queries: int, keys: int, device: torch.device, places: Tensor | None = None
    ) -> Tensor:
        """Returns the table row of each (query, key), (q k) or with places (b 1 q k): the clipped
        distance key - query, from 0."""
        key = torch.arange(keys, device=device)
        query = torch.arange(keys - queries, keys, device=device)
        query = query if places is None else places[:, None]
        return (key - query[..., None]).clamp(-self.distance, self.distance) + self.distance

    def forward(self, q: Tensor, k: Tensor, context: Context, scale: float) -> Tensor:
        rows = self.rows(q.shape[2], k.shape[2], q.device, context.places)
        by_distance = (q * scale) @ self.keys.T.to(q.dtype)  # b h q 2D+1
        return by_distance.gather(-1, rows.expand(*q.shape[:2], -1, -1))


class ShawTables(ShawKeys):
    """Keys and values; the weights are needed in the open, so no fused kernel serves."""

    def __init__(self, config: ShawPositionConfig, geometry: Geometry) -> None:
        super().__init__(config, geometry)
        self.shared = config.shared
        if not config.shared:
            self.values = nn.Parameter(torch.empty_like(self.keys))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if not self.shared:
            fill_normal_(self.values, self.std)

    def attend_values(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Any, scale: float, dropout: float
    ) -> Tensor:
        weights = attention_weights(q, k, mask, bias, scale)  # b h q k
        weights = F.dropout(weights, dropout) if dropout else weights
        rows = self.rows(q.shape[2], k.shape[2], q.device).expand(*q.shape[:2], -1, -1)
        table = (self.keys if self.shared else self.values).to(q.dtype)
        by_distance = weights.new_zeros(*weights.shape[:3], table.shape[0])
        by_distance = by_distance.scatter_add(-1, rows, weights)  # weight that each distance gets
        if v.shape[1] != q.shape[1]:
            v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        return weights @ v + by_distance @ table


# -- Swin ------------------------------------------------------------------------------------------


class ContinuousPosition(Position):
    """A bias for each head from the offset between two places of a grid, whatever its size."""

    def __init__(self, config: ContinuousPositionConfig, geometry: Geometry) -> None:
        super().__init__()
        if geometry.grid is None:
            raise ConfigError("position 'continuous' serves a grid; text takes 't5'.")
        self.slope = config.slope
        hidden = config.width or geometry.width
        sizes = [len(geometry.grid), *[hidden] * config.layers, geometry.heads]
        self.maps = nn.ModuleList(
            Linear(before, after, std=before**-0.5) for before, after in pairwise(sizes)
        )

    def bias(self, where: Where, dtype: torch.dtype) -> Tensor:
        assert where.grid is not None
        weight: Any = self.maps[0].weight
        device = weight.device
        # The network sees each offset once; there are far fewer of them than of pairs of places.
        axes = [torch.arange(1 - size, size, device=device) for size in where.grid]
        offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).float()  # ... a
        x = (offsets.sign() * offsets.abs().log1p()).to(weight.dtype)
        for layer in self.maps[:-1]:
            x = F.leaky_relu(layer(x), self.slope)
        table = self.maps[-1](x).flatten(0, -2)  # r h
        places = torch.cartesian_prod(*(torch.arange(s, device=device) for s in where.grid))
        places = places.view(-1, len(where.grid))
        row = places.new_zeros(())
        for axis, size in enumerate(where.grid):  # of the offset from key to query
            offset = places[:, None, axis] - places[None, :, axis]  # q k
            row = row * (2 * size - 1) + offset + size - 1
        return F.embedding(row, table).permute(2, 0, 1)[None].to(dtype)


# -- Transformer-XL --------------------------------------------------------------------------------


class RelativePosition(Position):
    """((q + u) k + (q + v) r[distance] (+ (q + s) e[same segment])) * scale; all weights per
    layer."""

    def __init__(self, config: RelativePositionConfig, geometry: Geometry) -> None:
        super().__init__()
        if geometry.width % 2:
            raise ConfigError(
                f"position 'transformer-xl' needs an even width, got {geometry.width}."
            )
        self.config, self.geometry = config, geometry

    def layer_part(self) -> nn.Module:
        return RelativeScores(self.config, self.geometry)


class RelativeScores(nn.Module):
    """One layer's part: everything but q k, as a bias for any kernel that takes one."""

    def __init__(self, config: RelativePositionConfig, geometry: Geometry) -> None:
        super().__init__()
        self.layout, self.segments, self.clamp = config.layout, config.segments, config.clamp
        self.heads, self.head_dim = geometry.heads, geometry.head_dim
        self.width, self.std = geometry.width, geometry.std
        shape = (geometry.heads, geometry.head_dim)
        self.project = Linear(geometry.width, math.prod(shape), bias=False, std=geometry.std)
        self.content_bias = nn.Parameter(torch.empty(shape))  # u
        self.position_bias = nn.Parameter(torch.empty(shape))  # v
        if config.segments:
            self.segment_bias = nn.Parameter(torch.empty(shape))  # s
            self.segment_embedding = nn.Parameter(torch.empty(2, *shape))  # same, other

    def reset_parameters(self) -> None:
        for parameter in self.parameters(recurse=False):
            fill_normal_(parameter, self.std)

    def forward(self, q: Tensor, k: Tensor, context: Context, scale: float) -> Tensor:
        if k.shape[1] != q.shape[1]:
            k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        content = self.content_bias[:, None] @ k.transpose(-1, -2)  # b h 1 k
        scores = content + self._by_distance(q, k.shape[2], context)
        if self.segments and context.types is not None:
            queries, keys = context.types
            other = (queries[:, None, :, None] != keys[:, None, None, :]).to(q.dtype)  # b 1 q k
            term = torch.einsum(
                "bhqc,shc->bhqs", q + self.segment_bias[:, None], self.segment_embedding
            )
            scores = scores + torch.lerp(term[..., :1], term[..., 1:], other)
        return scores * scale

    def can_block(
        self, q: Tensor, k: Tensor, mask: Mask, bias: Tensor | None, context: Context
    ) -> bool:
        """Returns whether `attend_blocks` serves: a sequence that looks at itself, whole."""
        return (
            q.shape[1:3] == k.shape[1:3]
            and mask.rules <= {"padding", "causal", "window"}
            and bias is None
            and context.places is None
            and mask.place is None
            and not (self.segments and context.types is not None)
            and not (context.record is not None and context.record.attention)
        )

    def attend_blocks(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Mask,
        kernel: Any,
        scale: float,
        dropout: float,
        context: Context,
    ) -> Tensor:  # b h n c each -> b h n c
        """Returns the attention's output, some queries at a time: the scores of all distances would
        take 2 n^2 numbers for each head, 14 GB for ten minutes of speech."""
        b, h, n, _ = q.shape
        r = self._projected(n, n, q, context).permute(1, 2, 0)  # h c r, from far past to future
        content = q + self.content_bias[:, None]
        position = (q + self.position_bias[:, None]) * scale
        reach = n if mask.window is None else mask.window - 1
        size = max(1, min(n, BLOCK_SCORES // (b * h * min(2 * n, 2 * reach + 1))))
        found = []
        for start in range(0, n, size):
            stop = min(start + size, n)
            first, last = max(0, start - reach), min(n, stop if mask.causal else stop + reach)
            # query i meets key j at row n-1-i+j of r
            scores = position[:, :, start:stop] @ r[..., n - stop + first : n - 1 - start + last]
            bias = _shifted(scores, last - first)
            seen = Mask(dense=mask.block(start, stop, first, last, q.device))
            keys, values = k[:, :, first:last], v[:, :, first:last]
            out, _ = kernel.attend(
                content[:, :, start:stop], keys, values, seen, bias, scale, None, dropout
            )
            found.append(out)
        return found[0] if len(found) == 1 else torch.cat(found, dim=2)

    def _projected(self, queries: int, keys: int, like: Tensor, context: Context) -> Tensor:
        """Returns the projected sinusoids (r h c) of distances keys - 1 down to 1 - queries."""
        key = ("sinusoid", queries, keys, self.width, self.layout, self.clamp)
        if key not in context.kept:
            distance = torch.arange(keys - 1, -queries, -1, device=like.device)
            if self.clamp is not None:
                distance = distance.clamp(-self.clamp, self.clamp)
            context.kept[key] = self._sinusoid(distance).to(like.dtype)
        return self.project(context.kept[key]).view(-1, self.heads, self.head_dim)

    def _by_distance(self, q: Tensor, keys: int, context: Context) -> Tensor:  # -> b h q k
        h, queries, places = q.shape[1], q.shape[2], context.places
        r = self._projected(queries if places is None else keys, keys, q, context)
        scores = torch.einsum("bhqc,rhc->bhqr", q + self.position_bias[:, None], r)
        if places is not None:  # query at place i meets key j at row keys-1-i+j of the distances
            rows = keys - 1 - places[..., None] + torch.arange(keys, device=q.device)  # b q k
            return scores.gather(-1, rows[:, None].expand(-1, h, -1, -1))
        return _shifted(scores, keys)

    def _sinusoid(self, distance: Tensor) -> Tensor:  # r -> r d
        exponent = torch.arange(0, self.width, 2, device=distance.device, dtype=torch.float32)
        angle = distance.float()[:, None] * 10000.0 ** -(exponent / self.width)
        if self.layout == "split":
            return torch.cat([angle.sin(), angle.cos()], dim=-1)
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def _shifted(scores: Tensor, keys: int) -> Tensor:  # b h q r -> b h q k
    """Returns the score that each query has with each key, of scores by distance: query i (of q)
    meets key j at distance q-1-i+j. A view, no gather."""
    scores = scores.contiguous()
    b, h, queries, count = scores.shape
    strides = (*scores.stride()[:2], count - 1, 1)
    return scores.as_strided((b, h, queries, keys), strides, scores.storage_offset() + queries - 1)
