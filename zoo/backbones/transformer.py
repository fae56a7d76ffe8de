"""The stack. Whole first, parts after: Transformer, Block."""

# b batch, n tokens, d width, m memory tokens, k keys (past and new), e width of the condition

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from zoo.backbones.schema import TransformerConfig
from zoo.errors import ConfigError
from zoo.nn.attention import Context, Record
from zoo.nn.cache import Cache
from zoo.nn.forms import MANY, prepare
from zoo.nn.linear import Linear
from zoo.nn.mask import Mask
from zoo.nn.norm import build_norm
from zoo.nn.position import Geometry, Position, Where
from zoo.nn.replay import Replays
from zoo.nn.schema import AttentionConfig
from zoo.registry import build

__all__ = ["Block", "Transformer"]


class Transformer(nn.Module):
    """A stack of equal blocks: encoder, decoder, or decoder with cross-attention, as its config
    says."""

    def __init__(
        self,
        config: TransformerConfig,
        *,
        grid: tuple[int, ...] | None = None,
        prefix: int = 0,
        memory_width: int | None = None,
        condition_width: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.grid, self.prefix = grid, prefix
        self.reads = [0, 0]  # batches of few and of many rows, until weights are laid out for them
        self.replays = Replays()  # how its steps of one token are played
        own = config.embedding_dropout
        self.embedding_dropout = config.dropout if own is None else own
        heads, _, head_dim = config.attention.shape(config.width)
        geometry = Geometry(
            config.width,
            heads,
            head_dim,
            config.causal,
            config.length,
            grid,
            prefix,
            config.init_std,
        )
        self.positions = nn.ModuleList(build(p, geometry=geometry) for p in config.position)
        outer = config.outer_norm or config.norm
        self.outer_adaptive = outer.adaptive
        if config.embedding_norm:
            self.embedding_norm = build_norm(outer, config.width, condition_width)
        self.layers = nn.ModuleList(
            Block(config.block(i), i, self.positions, memory_width, condition_width)
            for i in range(config.depth)
        )
        if config.final_norm:
            self.final_norm = build_norm(outer, config.width, condition_width)

    def forward(
        self,
        x: Tensor,  # b n d
        *,
        mask: Mask | None = None,
        grid: tuple[int, ...] | None = None,
        clip: tuple[int, int, int] | None = None,  # times, rows, columns: what x is pieces of
        positions: Tensor | None = None,  # b|1 n, when they are not simply counted
        memory: Tensor | None = None,  # b m d
        memory_mask: Tensor | None = None,  # b m, True marks real tokens
        condition: Tensor | None = None,  # b e, what adaptive norms read
        cache: Cache | None = None,
        record: Record | None = None,
    ) -> Tensor:  # b n d
        """Runs the stack. `mask.padding` covers past and new tokens when there is a cache."""
        x = x.contiguous()  # sums keep the strides of a turned picture or sound in every layer
        mask = mask or Mask()
        if not self.training:
            self._count(x.shape[0] * x.shape[1], cache)
        if self.config.causal:
            mask = mask.also(causal=True, place=getattr(cache, "place", None))
        where = self._where(x, mask, positions, cache, grid or self.grid, clip)
        context = Context(
            mask,
            where=where,
            cache=cache,
            memory=memory,
            memory_mask=Mask(padding=memory_mask),
            condition=condition,
            record=record,
        )
        told = (condition,) if self.outer_adaptive else ()
        position: Any
        for position in self.positions:
            x = position.embed(x, where)
            context.angles = context.angles or position.angles(where, x.dtype)
            bias = position.bias(where, x.dtype)
            if bias is not None:
                context.bias = bias if context.bias is None else context.bias + bias
        if self.config.embedding_norm:
            x = self.embedding_norm(x, *told)
        if self.embedding_dropout and self.training:
            x = F.dropout(x, self.embedding_dropout)
        if record is not None and -1 in record.layers:
            record.hidden[-1] = x
        if cache is not None and x.shape[1] == 1:
            return self.replays.step(self, self._blocks, x, context)
        return self._blocks(x, context)

    def _blocks(self, x: Tensor, context: Context) -> Tensor:  # b n d -> b n d
        record = context.record
        layer: Any
        for layer in self.layers:
            if self.config.checkpoint and self.training:
                x = checkpoint(layer, x, context, use_reentrant=False)
            else:
                x = layer(x, context)
            if record is not None and layer.index in record.layers:
                record.hidden[layer.index] = x
        if not self.config.final_norm:
            return x
        return self.final_norm(x, context.condition) if self.outer_adaptive else self.final_norm(x)

    def _count(self, rows: int, cache: Cache | None) -> None:
        """Lays the weights out for products of many rows (zoo.nn.forms) when the first batch of so
        many comes, so that what it gives stays the same; for fewer when a second one does, for a
        single one the copies would not pay. Who decodes prepares few rows by himself."""
        if torch.compiler.is_compiling() or torch.is_grad_enabled():
            return
        many = rows >= MANY
        worth_it = 1 if many else 2
        if rows > 1 and self.reads[many] < worth_it and (cache is None or many):
            self.reads[many] += 1
            if self.reads[many] == worth_it:
                prepare(self, rows)

    def train(self, mode: bool = True) -> Transformer:
        self.reads = [0, 0]
        self.replays.clear()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.reads = [0, 0]
        self.replays.clear()
        return super()._apply(fn, recurse)

    def fsdp_units(self) -> list[nn.Module]:
        """Returns what is sharded as a unit."""
        return list(self.layers)

    @property
    def packs(self) -> bool:
        """Whether a step may be ragged (zoo.nn.paged): no part looks along the row but attention,
        which is told where each sequence begins."""
        parts = (part for part in self.modules() if part is not self)
        return self.config.causal and all(getattr(part, "packs", True) for part in parts)

    def _where(
        self,
        x: Tensor,
        mask: Mask,
        positions: Tensor | None,
        cache: Cache | None,
        grid: tuple[int, ...] | None,
        clip: tuple[int, int, int] | None,
    ) -> Where:
        if getattr(cache, "alone", False):
            own: Any = cache
            places = own.places()
            return Where(places, places, grid, self.prefix, longest=max(own.lengths))
        past = cache.length if cache is not None else 0
        n = x.shape[1]
        if mask.padding is not None:  # the first real token stands at 0, wherever the padding is
            keys = (mask.padding.cumsum(-1) - 1).clamp(min=0)
        else:
            keys = torch.arange(past + n, device=x.device)[None]
        if mask.segments is not None:  # every segment begins at 0, as if it were alone
            keys = keys - _segment_starts(mask.segments, keys)
        queries = keys[:, -n:] if positions is None else positions
        keys = keys if positions is None or past else queries
        return Where(queries, keys, grid, self.prefix, past, clip)


class Block(nn.Module):
    """Sublayers in the configured order, each with its norm and its way back into the residual
    stream."""

    def __init__(
        self,
        config: TransformerConfig,
        index: int,
        positions: nn.ModuleList,
        memory_width: int | None = None,
        condition_width: int | None = None,
    ) -> None:
        super().__init__()
        self.index = index
        self.adaptive = config.norm.adaptive
        self.placement = config.placement
        self.parallel = config.parallel
        self.raw = "attention" if config.raw_keys else None
        self.dropout = config.dropout
        self.drop_path = config.drop_path * index / max(config.depth - 1, 1)
        self.scaled = config.layer_scale is not None
        self.kinds = dict(config.sublayers())  # in order: name -> kind
        self.order = list(self.kinds)
        before = config.pre_norms if config.placement in ("pre", "both") else []
        inside = config.post_norms if config.placement == "both" else []
        self.post_norms = [name for name, kind in self.kinds.items() if kind in inside]
        after = config.placement == "post"
        self.names = [  # each with its norms: before it, after it, after its sum
            (
                name,
                f"{name}_norm" if kind in before else None,
                f"{name}_post_norm" if kind in inside else None,
                f"{name}_norm" if after else None,
            )
            for name, kind in self.kinds.items()
        ]
        self.factors = {
            name: tuple(config.residual.get(kind, (1.0, 1.0))) for name, kind in self.kinds.items()
        }
        self.weighted = {name for name, factors in self.factors.items() if factors != (1.0, 1.0)}

        def norm(kind: str = "") -> nn.Module:
            own = config.feedforward_norm if kind == "feedforward" else None
            return build_norm(own or config.norm, config.width, condition_width)

        memory_map = None
        if config.memory_map:
            cross: Any = config.cross_attention
            memory_map = Linear(
                memory_width or config.width, config.width, cross.qkv_bias, config.init_std
            )
            memory_width = config.width
        self.register_module("memory_map", memory_map)
        for name, kind in self.kinds.items():
            setattr(self, name, self._sublayer(kind, config, positions, memory_width))
            shares = self.parallel and config.parallel_norms == 1 and name != self.order[0]
            if (after or kind in before) and not shares:
                setattr(self, f"{name}_norm", norm(kind))
            if name in self.post_norms:
                setattr(self, f"{name}_post_norm", norm(kind))
            if self.scaled:
                setattr(self, f"{name}_scale", LayerScale(config.width, config.layer_scale or 0.0))
        self.register_module("block_norm", norm() if config.block_norm else None)

    def _sublayer(
        self,
        name: str,
        config: TransformerConfig,
        positions: nn.ModuleList,
        memory_width: int | None,
    ) -> nn.Module:
        depth = config.depth if config.init_residual == "depth" else 0
        if name == "feedforward":
            return build(config.feedforward, width=config.width, std=config.init_std, depth=depth)
        if name == "convolution":
            return build(config.convolution, width=config.width, std=config.init_std, depth=depth)
        cross = name == "cross_attention"
        part = config.cross_attention if cross else config.attention
        assert part is not None
        context: dict = {"std": config.init_std, "depth": depth, "layer": self.index}
        if isinstance(part, AttentionConfig):
            context |= {
                "cross": cross,
                "memory_width": memory_width,
                "needs": _needs(config, cross),
                "position": None if cross else _layer_part(positions),
            }
        return build(part, width=config.width, **context)

    def forward(self, x: Tensor, context: Context) -> Tensor:  # b n d -> b n d
        # a dict: at one token a step, attributes of modules are dear
        part: dict[str, Any] = self._modules
        if part["memory_map"] is not None:
            assert context.memory is not None, "a map of a memory without one"
            context = replace(context, memory=part["memory_map"](F.silu(context.memory)))
        if self.parallel:
            return self._forward_parallel(x, context)
        told = (context.condition,) if self.adaptive else ()
        for name, before, inside, after in self.names:
            y = x if before is None else part[before](x, *told)
            y = self._branch(name, y, replace(context, source=x) if name == self.raw else context)
            if inside is not None:
                y = part[inside](y, *told)
            x = self._sum(name, x, self._dropped(y) if self.training else y)
            if after is not None:
                x = part[after](x, *told)
        last = part["block_norm"]
        return x if last is None else last(x, *told)

    def _forward_parallel(self, x: Tensor, context: Context) -> Tensor:
        total, normed = x, x
        told = (context.condition,) if self.adaptive else ()
        for name in self.order:
            if self.placement in ("pre", "both") and hasattr(self, f"{name}_norm"):
                normed = getattr(self, f"{name}_norm")(x, *told)
            y = self._branch(name, normed, context)
            if name in self.post_norms:
                y = getattr(self, f"{name}_post_norm")(y, *told)
            total = total + self._dropped(y)
        if self.placement == "post":
            return getattr(self, f"{self.order[0]}_norm")(total, *told)
        return total

    def _sum(self, name: str, stream: Tensor, branch: Tensor) -> Tensor:
        if name not in self.weighted:
            return stream + branch
        kept, added = self.factors[name]
        return torch.add(stream if kept == 1 else stream * kept, branch, alpha=added)

    def _branch(self, name: str, x: Tensor, context: Context) -> Tensor:
        kind = self.kinds[name]
        sublayer: Any = self._modules[name]
        if kind == "feedforward":
            y = sublayer(x)
        elif kind == "convolution":
            shapes = (getattr(context.where, name, None) for name in ("grid", "clip"))
            y = sublayer(x, context.mask.padding, *shapes)
        else:
            y = sublayer(x, context)
        return getattr(self, f"{name}_scale")(y) if self.scaled else y

    def _dropped(self, y: Tensor) -> Tensor:
        if not self.training:
            return y
        y = F.dropout(y, self.dropout, True)
        if (
            self.drop_path
        ):  # whole samples skip the sublayer, the rest is scaled up (Huang et al. 2016)
            keep = 1 - self.drop_path
            y = y * torch.empty(y.shape[0], 1, 1, device=y.device, dtype=y.dtype).bernoulli_(
                keep
            ).div_(keep)
        return y


class LayerScale(nn.Module):
    """A learned factor per channel (Touvron et al. 2021, arXiv 2103.17239)."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.start = start
        self.weight = nn.Parameter(torch.empty(width))

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, self.start)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def _segment_starts(segments: Tensor, places: Tensor) -> Tensor:  # b k, b|1 k -> b k
    """Returns the place at which the segment of each token begins."""
    first = torch.ones_like(segments, dtype=torch.bool)
    first[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return torch.where(first, places, 0).cummax(-1).values


def _needs(config: TransformerConfig, cross: bool) -> frozenset[str]:
    """Returns what a kernel must be able to do in this stack, so that a wrong choice fails when
    it is built."""
    if cross:
        return frozenset({"cross"})
    needs = set()
    if config.causal:
        needs |= {"causal", "cache"}
    if any(p.biases_scores for p in config.position):
        needs.add("bias")
    return frozenset(needs)


def _layer_part(positions: nn.ModuleList) -> nn.Module | None:
    made: list[tuple[Any, nn.Module | None]] = [
        (p, p.layer_part()) for p in positions if isinstance(p, Position)
    ]
    found = [part for _, part in made if part is not None]
    if len(found) > 1:
        names = " and ".join(p.config.zoo_kind for p, part in made if part is not None)
        raise ConfigError(f"position: {names} both have parameters in every layer; choose one.")
    return found[0] if found else None
