"""What text models share: their embedding, their head, their output."""

# b batch, n tokens, v vocabulary, d width, e embedding width

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.models.text.schema import TextModelConfig
from zoo.nn.feedforward import ACTIVATIONS
from zoo.nn.forms import FORMS, Beside, Form, Freezable
from zoo.nn.linear import Embedding, Linear
from zoo.nn.mask import Mask
from zoo.nn.matmul import linear
from zoo.registry import build

__all__ = ["TextOutput", "TokenEmbedding", "TokenHead", "as_mask"]


@dataclass
class TextOutput:
    """What a text model gives."""

    logits: Tensor | None  # b n v
    hidden: Tensor  # b n d
    pooled: Tensor | None = None  # b d, of encoders with a pooler
    next_sentence: Tensor | None = None  # b 2, of BERT
    memory: Any = None  # hidden states for the next segment, of XLNet


def as_mask(mask: Tensor | Mask | None, prefix: Tensor | None = None) -> Mask | None:
    """Returns the Mask of what callers give: (b n) of ones and zeros or bools (1 = real), (b 1 n
    n) allowed, or a Mask."""
    if isinstance(mask, Tensor):
        mask = Mask(padding=mask.bool()) if mask.ndim == 2 else Mask(dense=mask.bool())
    if prefix is not None:
        mask = (mask or Mask()).also(prefix=prefix)
    return mask


class TokenEmbedding(nn.Module):
    """Tokens to vectors: a table, perhaps scaled, of unit rows, or of a smaller width and
    projected."""

    def __init__(self, config: TextModelConfig, width: int, std: float, vocabulary: int) -> None:
        super().__init__()
        self.scale = math.sqrt(width) if config.scale_embedding else 1.0
        self.unit = config.unit_embedding
        inner = config.embedding_width or width
        self.table = Embedding(vocabulary, inner, inner**-0.5 if config.scale_embedding else std)
        if inner != width:
            self.project = Linear(inner, width, bias=False, std=std)
        self.factorised = inner != width

    @property
    def weight(self) -> Tensor:
        """The rows (v e), of unit length if configured so; what a tied head multiplies with."""
        weight = self.table.weight
        return F.normalize(weight, dim=-1) if self.unit else weight

    def forward(self, tokens: Tensor) -> Tensor:  # b n -> b n d
        x = F.embedding(tokens, self.weight)
        if self.factorised:
            x = self.project(x)
        return x * self.scale if self.scale != 1.0 else x


class TokenHead(Freezable):
    """Vectors to scores over the vocabulary: (transform,) scale, the embedding transposed or a
    matrix of its own, bias."""

    def __init__(
        self,
        config: TextModelConfig,
        width: int,
        norm: Any,
        std: float,
        vocabulary: int,
        transform: str | None = None,
        transform_bias: bool = True,
    ) -> None:
        super().__init__()
        self.scale, self.tied = config.head_scale, config.tied
        inner = config.embedding_width or width
        if transform is not None or inner != width:
            self.dense = Linear(width, inner, transform_bias, std)
        if transform is not None:
            self.norm = build(norm, width=inner)
        self.has_dense, self.transform = transform is not None or inner != width, transform
        weight = None if config.tied else nn.Parameter(torch.empty(vocabulary, inner))
        self.register_parameter("weight", weight)
        self.bias = nn.Parameter(torch.empty(vocabulary)) if config.head_bias else None
        self.std = std
        self.wanted: str | None = None  # a tied head's form, made beside the embedding on first use
        self.of_table: Form | None = None
        self.rows = 0  # that a tied head's copies are still to be made for

    def freeze(self, name: str) -> None:
        super().freeze(name)
        self.wanted = name if self.tied else None

    def thaw(self) -> None:
        super().thaw()
        self.wanted = self.of_table = None

    def prepare(self, rows: int) -> None:
        self.rows = rows if self.tied else 0
        if not self.tied:
            super().prepare(rows)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.of_table = None
        return super()._apply(fn, recurse)

    def reset_parameters(self) -> None:
        if not self.tied:
            nn.init.normal_(self.weight, std=self.std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, embedding: TokenEmbedding) -> Tensor:  # b n d -> b n v
        if self.has_dense:
            x = self.dense(x)
        if self.transform is not None:
            x = self.norm(ACTIVATIONS[self.transform](x))
        if self.scale != 1.0:
            x = x * self.scale
        form = self.form or self._form_of(embedding)
        if form is not None:
            return form(x)
        weight = embedding.weight if self.tied else self._parameters["weight"]
        if self.beside is not None and self.beside.stands_for(weight, self.bias):
            return self.beside.product(x, "linear")
        return linear(x, weight, self.bias)  # type: ignore[arg-type]

    def _form_of(self, embedding: TokenEmbedding) -> Form | None:
        if self.of_table is None and self.wanted is not None:
            weight, form = embedding.weight, FORMS[self.wanted]
            self.of_table = form(weight, self.bias) if form.serves(weight) else None
        if self.rows and self.of_table is not None:
            self.of_table.prepare(self.rows)
            self.rows = 0
        elif self.rows:  # no form is wanted, or it does not serve this dtype
            self.beside = Beside.renewed(self.beside, embedding.weight, self.bias, self.rows)
            self.rows = 0
        return self.of_table
