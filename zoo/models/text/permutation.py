"""XLNet: a content stream that may see its own token, and a query stream that may not."""

# b batch, n tokens, k memory and tokens, p predicted places, v vocabulary, d width

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.models.text.common import TextOutput, TokenEmbedding, TokenHead
from zoo.models.text.schema import PermutationLMConfig
from zoo.models.text.verbs import ReadsText
from zoo.nn.attention import Context, Record
from zoo.nn.linear import fill_normal_
from zoo.nn.mask import Mask
from zoo.nn.position import Where
from zoo.registry import build

__all__ = ["PermutationLM"]


class PermutationLM(nn.Module, ReadsText):
    """Tokens and an order to predict them in; scores of the predicted places out.

    Without `targets` only the content stream runs and every place is scored from what its mask
    allows.
    """

    def __init__(self, config: PermutationLMConfig) -> None:
        super().__init__()
        self.config = config
        backbone = config.backbone
        self.embedding = TokenEmbedding(
            config, backbone.width, backbone.init_std, config.vocabulary
        )
        self.query_embedding = QueryEmbedding(backbone.width, backbone.init_std)
        self.backbone = build(backbone)
        self.head = TokenHead(
            config, backbone.width, backbone.norm, backbone.init_std, config.vocabulary
        )
        if any(position.zoo_kind == "shaw" and position.values for position in backbone.position):
            raise ConfigError(
                "position 'shaw': its values know no chosen places; set position.values=false."
            )

    def forward(
        self,
        tokens: Tensor,  # b n
        mask: Tensor | None = None,  # b n, 1 for real tokens
        *,
        types: Tensor | None = None,  # b n, segments
        order: Tensor | None = None,  # b n n, True where place i may NOT see place j (perm_mask)
        targets: Tensor | None = None,  # b p n, one-hot rows of the places to predict
        memory: list[Tensor] | None = None,  # per layer (b m d), from an earlier call
        record: Record | None = None,
    ) -> TextOutput:
        """`.hidden` is the query stream (b p d) if there are targets, else the content stream.

        A place that may see nothing attends to nothing. `.memory` holds the hidden states for the
        next segment when the config keeps some.
        """
        past = memory[0].shape[1] if memory else 0
        sees, query_sees = self._visible(mask, order, tokens, past)
        keys = self._keys(mask, tokens, past)
        own = Context(Mask(dense=sees[:, None]), types=_types(types, past), record=record)
        content = self._enter(self.embedding(tokens), own, Where(keys[:, past:], keys))
        query = asked = None
        if targets is not None:
            places = targets.argmax(-1)  # b p
            rows = targets.sum(-1, keepdim=True).bool() & _pick(query_sees, places)
            asked = Context(
                Mask(dense=rows[:, None]), types=_types(types, past, places), places=past + places
            )
            query = self.query_embedding(*places.shape)
            keys = keys.expand(len(tokens), -1)
            query = self._enter(query, asked, Where(_pick(keys, past + places), keys))
        kept: list[Tensor] = []
        for index, layer in enumerate(self.backbone.layers):
            states = torch.cat([memory[index], content], dim=1) if memory else content
            if self.config.memory:
                kept.append(states[:, -self.config.memory :].detach())
            if layer.placement in ("pre", "both"):  # what keys are made of is normed as x is
                states = layer.attention_norm(states)
            own.source = states
            if query is not None and asked is not None:
                asked.source = states
                query = layer(query, asked)
            content = layer(content, own)
        hidden = content if query is None else query
        if self.config.backbone.final_norm:
            hidden = self.backbone.final_norm(hidden)
        output_memory = kept if self.config.memory else None
        return TextOutput(self.head(hidden, self.embedding), hidden, memory=output_memory)

    def _enter(self, x: Tensor, context: Context, where: Where) -> Tensor:
        """Returns the input of a stream with what positions put in it; what they put elsewhere goes
        to the context."""
        context.where = where
        for position in self.backbone.positions:
            x = position.embed(x, where)
            angles = position.angles(where, x.dtype)
            if angles is not None:
                context.angles = angles
                at_keys = Where(where.keys, where.keys)
                context.key_angles = position.angles(at_keys, x.dtype)
            bias = position.bias(where, x.dtype)
            if bias is not None:
                context.bias = bias if context.bias is None else context.bias + bias
        if self.config.backbone.embedding_norm:
            x = self.backbone.embedding_norm(x)
        return F.dropout(x, self.backbone.embedding_dropout, self.training)

    def _keys(self, mask: Tensor | None, tokens: Tensor, past: int) -> Tensor:
        """Returns the positions of memory and tokens (b|1 k); the tokens' follow the mask."""
        n = tokens.shape[1]
        counted = torch.arange(past + n, device=tokens.device)[None]
        if mask is None:
            return counted
        own = past + (mask.long().cumsum(-1) - 1).clamp(min=0)
        return torch.cat([counted[:, :past].expand(len(tokens), -1), own], dim=-1)

    def _visible(
        self, mask: Tensor | None, order: Tensor | None, tokens: Tensor, past: int
    ) -> tuple[Tensor, Tensor]:
        """Returns what the content and the query stream may see, each (b n k) bool."""
        b, n = tokens.shape
        sees = torch.ones(b, n, n, dtype=torch.bool, device=tokens.device)
        if order is not None:
            sees = sees & ~order.bool()
        if mask is not None:
            sees = sees & mask.bool()[:, None, :]
        if self.config.causal:
            sees = sees & torch.ones_like(sees[0]).tril()
        own = torch.eye(n, dtype=torch.bool, device=tokens.device)
        before = torch.ones(b, n, past, dtype=torch.bool, device=tokens.device)
        return torch.cat([before, sees | own], dim=-1), torch.cat([before, sees], dim=-1)

    def fsdp_units(self) -> list[nn.Module]:
        """Returns what is sharded as a unit."""
        return self.backbone.fsdp_units()


class QueryEmbedding(nn.Module):
    """The learned vector that a predicted place starts from, in place of its token (mask_emb)."""

    def __init__(self, width: int, std: float) -> None:
        super().__init__()
        self.std = std
        self.weight = nn.Parameter(torch.empty(width))

    def reset_parameters(self) -> None:
        fill_normal_(self.weight, self.std)

    def forward(self, batch: int, places: int) -> Tensor:  # -> b p d
        return self.weight.expand(batch, places, -1)


def _types(
    types: Tensor | None, past: int, places: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    """Returns the segments of the queries (b n, or b p at the places) and of the keys (b k); all
    of the memory is of segment 0."""
    if types is None:
        return None
    keys = torch.cat([types.new_zeros(types.shape[0], past), types], dim=1)
    return (types if places is None else types.gather(1, places)), keys


def _pick(rows: Tensor, places: Tensor) -> Tensor:  # b n …, b p -> b p …
    """Returns the rows at the places."""
    return rows[torch.arange(len(rows), device=rows.device)[:, None], places]
