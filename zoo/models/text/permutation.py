"""XLNet: a content stream that may see its own token, and a query stream that may not."""

# b batch, n tokens, k memory and tokens, p predicted places, v vocabulary, d width

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.models.text.common import TextOutput, TokenEmbedding, TokenHead
from zoo.models.text.schema import PermutationLMConfig
from zoo.nn.attention import Context, Record
from zoo.nn.linear import fill_normal_
from zoo.nn.mask import Mask
from zoo.registry import build

__all__ = ["PermutationLM"]


class PermutationLM(nn.Module):
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
        """`.memory` holds the hidden states for the next segment when the config keeps some."""
        b, n = tokens.shape
        past = memory[0].shape[1] if memory else 0
        content_sees, query_sees = self._visible(mask, order, b, n, past, tokens.device)
        content = self.embedding(tokens)
        query = None if targets is None else self.query_embedding(b, targets.shape[1])
        if targets is not None:  # the rows of what each predicted place may see
            picked = targets.to(torch.float32)
            query_sees = torch.einsum("bpn,bnk->bpk", picked, query_sees.float()) > 0.5
        all_types = self._types(types, past, targets)
        kept: list[Tensor] = []
        for index, layer in enumerate(self.backbone.layers):
            kept.append(self._keep(content, memory, index))
            source = torch.cat([memory[index], content], dim=1) if memory else content
            context = Context(
                Mask(dense=content_sees[:, None]), source=source, types=all_types[0], record=record
            )
            if query is not None:
                asked = Context(Mask(dense=query_sees[:, None]), source=source, types=all_types[1])
                query = layer(query, asked)
            content = layer(content, context)
        hidden = content if query is None else query
        output_memory = kept if self.config.memory else None
        return TextOutput(self.head(hidden, self.embedding), hidden, memory=output_memory)

    def _visible(
        self,
        mask: Tensor | None,
        order: Tensor | None,
        b: int,
        n: int,
        past: int,
        device: torch.device,
    ) -> tuple[Tensor, Tensor]:
        """Returns what the content and the query stream may see, each (b n k) bool."""
        sees = torch.ones(b, n, n, dtype=torch.bool, device=device)
        if order is not None:
            sees = sees & ~order.bool()
        if mask is not None:
            sees = sees & mask.bool()[:, None, :]
        if self.config.causal:
            sees = sees & torch.ones(n, n, dtype=torch.bool, device=device).tril()
        own = torch.eye(n, dtype=torch.bool, device=device)
        before = torch.ones(b, n, past, dtype=torch.bool, device=device)
        return torch.cat([before, sees | own], dim=-1), torch.cat([before, sees], dim=-1)

    def _types(self, types: Tensor | None, past: int, targets: Tensor | None) -> tuple:
        """Returns (queries, keys) segments for the content and for the query stream."""
        if types is None:
            return None, None
        keys = torch.cat([types.new_zeros(types.shape[0], past), types], dim=1)
        if targets is None:
            return (types, keys), None
        asked = torch.einsum("bpn,bn->bp", targets.float(), types.float()).long()
        return (types, keys), (asked, keys)

    def _keep(self, content: Tensor, memory: list[Tensor] | None, index: int) -> Tensor:
        states = torch.cat([memory[index], content], dim=1) if memory else content
        return states[:, -self.config.memory :].detach() if self.config.memory else states[:, :0]

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
