"""Text encoders with their heads."""

# b batch, n tokens, v vocabulary, d width, k classes

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.models.text.common import TextOutput, TokenEmbedding, TokenHead, as_mask
from zoo.models.text.encoder_verbs import MaskedVerbs
from zoo.models.text.schema import MaskedLMConfig
from zoo.nn.attention import Record
from zoo.nn.linear import Embedding, Linear
from zoo.nn.mask import Mask
from zoo.registry import build

__all__ = ["MaskedLM"]


class MaskedLM(nn.Module, MaskedVerbs):
    """Tokens in; out come scores of each place's token, or what the configured task asks for."""

    def __init__(self, config: MaskedLMConfig) -> None:
        super().__init__()
        self.config = config
        backbone = config.backbone
        width, std = backbone.width, backbone.init_std
        self.embedding = TokenEmbedding(config, width, std, config.vocabulary)
        if config.token_types:
            self.token_types = Embedding(config.token_types, width, std)
        self.backbone = build(backbone)
        if config.pooler:
            self.pooler = Linear(width, width, std=std)
        if config.projection:
            self.projection = Linear(width, config.projection, bias=False, std=width**-0.5)
        if config.next_sentence:
            self.next_sentence = Linear(width, 2, std=std)
        if config.task == "fill":
            self.head: nn.Module = TokenHead(
                config, width, backbone.norm, std, config.vocabulary, config.transform
            )
        elif config.task in ("classify", "tag", "span"):
            if config.task == "classify" and config.classify_from == "dense":
                self.dense = Linear(width, width, std=std)
            self.head = Linear(width, 2 if config.task == "span" else config.classes, std=std)

    def forward(
        self,
        tokens: Tensor,  # b n
        mask: Tensor | Mask | None = None,  # b n, 1 for real tokens
        *,
        types: Tensor | None = None,  # b n, segment of each token; all 0 when absent
        record: Record | None = None,
    ) -> TextOutput:
        """`.logits` is (b n v) for fill, (b k) for classify, (b n k) for tag, (b n 2) for span,
        None for embed."""
        config = self.config
        x = self.embedding(tokens)
        if config.token_types:
            x = x + (self.token_types.weight[0] if types is None else self.token_types(types))
        rules = as_mask(mask)
        x = self.backbone(x, mask=rules, record=record)
        start = first_token(x, None if rules is None else rules.padding)
        pooled = torch.tanh(self.pooler(start)) if config.pooler else None
        follows = self.next_sentence(pooled) if config.next_sentence else None
        if config.task == "fill":
            logits = self.head(x, self.embedding)
        elif config.task == "classify":
            read: Any = (
                pooled if config.classify_from == "pooler" else torch.tanh(self.dense(start))
            )
            logits = self.head(F.dropout(read, config.backbone.dropout, self.training))
        else:
            logits = None if config.task == "embed" else self.head(x)
        return TextOutput(logits, x, pooled, follows)

    def sentence_vectors(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns one vector per text (b d): the mean over real tokens, the first token, the
        pooler, or the end; projected where the model projects."""
        vectors = self.pool(tokens, self(tokens, mask), mask)
        return F.normalize(vectors, dim=-1) if self.config.embed_unit else vectors

    def read(
        self, tokens: Tensor, layer: int | None = -1, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:  # b n -> b n d, b e
        """Returns what another model reads of texts: the output of a block (-1 the last one's,
        before the norm after it; None what that norm gives) and one vector each, of whatever
        length it has."""
        index = -1 if layer is None else layer % self.config.backbone.depth
        record = Record(layers=frozenset() if layer is None else frozenset({index}))
        output = self(tokens, mask, record=record)
        features = output.hidden if layer is None else record.hidden[index]
        return features, self.pool(tokens, output, mask)

    def pool(self, tokens: Tensor, output: TextOutput, mask: Tensor | None = None) -> Tensor:
        """Returns one vector per text (b d), as `embed_from` says."""
        config = self.config
        if config.embed_from == "pooler":
            assert output.pooled is not None
            vectors = output.pooled
        elif config.embed_from == "first":
            vectors = first_token(output.hidden, mask)
        elif config.embed_from == "end":  # without one, the first token is as good as any other
            ends = (tokens == config.special["eos"]).int().argmax(-1)
            vectors = output.hidden[torch.arange(len(ends), device=ends.device), ends]
        else:
            real = torch.ones_like(tokens) if mask is None else mask
            real = real[..., None].to(output.hidden.dtype)
            vectors = (output.hidden * real).sum(1) / real.sum(1).clamp(min=1e-9)
        return self.projection(vectors) if config.projection else vectors

    def fsdp_units(self) -> list[nn.Module]:
        """Returns what is sharded as a unit."""
        return self.backbone.fsdp_units()


def first_token(x: Tensor, padding: Tensor | None) -> Tensor:  # b n d, b n -> b d
    """Returns the first real token of each text, wherever the padding is."""
    if padding is None:
        return x[:, 0]
    return x[torch.arange(len(x), device=x.device), padding.int().argmax(-1)]
