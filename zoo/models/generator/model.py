"""The model that draws: a prompt, a stack over codes, a head."""

# b batch, p tokens before the codes, n codes, v codebook, d width

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.models.generator.prompt import Condition, Prompt
from zoo.models.generator.schema import GeneratorConfig
from zoo.models.generator.verbs import GeneratorVerbs
from zoo.models.text.common import TokenEmbedding, TokenHead
from zoo.nn.attention import Record
from zoo.nn.cache import Cache
from zoo.nn.linear import Linear
from zoo.nn.mask import Mask
from zoo.registry import build

__all__ = ["CodesOutput", "Generator"]


@dataclass
class CodesOutput:
    """What a model that draws gives."""

    logits: Tensor  # b n v, of each code: from those before it, or from all that are not masked
    hidden: Tensor  # b p+n d, what the stack gives
    text_logits: Tensor | None = None  # b m-1 t, of the prompt's tokens from the second on


class Generator(nn.Module, GeneratorVerbs):
    """Codes and a prompt in, scores of the codes out."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        backbone: Any = config.backbone
        width, std = backbone.width, backbone.init_std
        if config.visual is not None:
            self.visual = build(config.visual).requires_grad_(False)
        if config.source is not None:
            self.small = build(config.source).requires_grad_(False)
        if config.reader is not None:
            self.reader = build(config.reader).requires_grad_(False)
        self.mask_code = config.rows - 1  # of a model that fills in: the last row
        self.prompt = Prompt(config)
        self.embedding = TokenEmbedding(config, width, std, config.rows)  # type: ignore[arg-type]
        self.backbone = build(
            backbone,
            grid=config.shape,
            prefix=config.prefix,
            memory_width=self.prompt.width,
            condition_width=backbone.reads if config.pooled else None,
        )
        if config.head_norm:
            self.head_norm = build(backbone.norm, width=width)
        self.head = TokenHead(
            config,  # type: ignore[arg-type]
            width,
            backbone.norm,
            std,
            config.head_rows,
            config.transform,
            config.transform_bias,
        )
        if config.text_head:
            self.text_head = Linear(width, config.vocabulary, config.head_bias, std)

    def forward(
        self,
        codes: Tensor,  # b *grid, or b n; of a model that fills in, `mask_code` where unknown
        *,
        grid: tuple[int, ...] | None = None,  # of flat codes that are not of the usual grid
        record: Record | None = None,
        **asked: Any,  # what zoo.models.generator.prompt.Prompt takes: text, labels, …
    ) -> CodesOutput:
        """Returns scores of every code; a causal model's never see the code itself."""
        if codes.ndim > 2:
            grid, codes = tuple(codes.shape[1:]), codes.flatten(1)
        condition = self.prompt(len(codes), **self.reading(asked))
        return self.score(codes, condition, grid=grid, record=record)

    def reading(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Returns what is asked as the prompt takes it: of a text, what the reader makes of it."""
        if self.config.reader is None or "text" not in asked:
            return asked
        rest = {key: value for key, value in asked.items() if key not in ("text", "text_mask")}
        mask = asked.get("text_mask") if self.config.reader_masks else None
        with torch.no_grad():
            features, pooled = self.reader.read(asked["text"], self.config.reader_layer, mask)
        told = {"pooled": pooled} if self.config.pooled else {}
        seen = {} if mask is None else {"features_mask": mask}
        return {"features": features, **seen, **told, **rest}

    def score(
        self,
        codes: Tensor,  # b n
        condition: Condition,
        *,
        grid: tuple[int, ...] | None = None,
        record: Record | None = None,
    ) -> CodesOutput:
        """Returns the same for a prompt that was read before."""
        causal, prefix = self.config.causal, self.config.prefix
        hidden = self.run(codes[:, :-1] if causal else codes, condition, grid=grid, record=record)
        logits = self.read(hidden[:, prefix - causal :])
        text = None
        if self.config.text_head:
            read = hidden[:, : self.config.text_length - 1]
            text = self.text_head(self.head_norm(read) if self.config.head_norm else read)
        return CodesOutput(logits, hidden, text)

    def run(
        self,
        codes: Tensor,  # b n, may be none
        condition: Condition,
        *,
        grid: tuple[int, ...] | None = None,
        cache: Cache | None = None,
        record: Record | None = None,
    ) -> Tensor:  # b p+n d
        """Runs the stack over what stands before the codes (once, when there is a cache) and
        them."""
        begins = cache is None or cache.length == 0
        if begins and self.config.start_code is not None:
            codes = F.pad(codes, (1, 0), value=self.config.start_code)
        x = self.embedding(codes)
        mask, positions = None, None
        if condition.prefix is not None and begins:
            x = torch.cat([condition.prefix.to(x.dtype), x], dim=1)
            if self.config.causal and self.config.text_order == "full":
                mask = Mask(prefix=torch.full(x.shape[:1], self.config.prefix, device=x.device))
        if condition.prefix_mask is not None:  # not seen, but codes stay at their places
            past = 0 if cache is None else cache.length
            positions = torch.arange(past, past + x.shape[1], device=x.device)[None]
            seen = condition.prefix_mask
            seen = F.pad(seen, (0, past + x.shape[1] - seen.shape[1]), value=True)
            mask = (mask or Mask()).also(padding=seen)
        return self.backbone(
            x,
            mask=mask,
            grid=grid,
            positions=positions,
            memory=condition.memory,
            memory_mask=condition.memory_mask,
            condition=condition.vector,
            cache=cache,
            record=record,
        )

    def read(self, hidden: Tensor) -> Tensor:  # b n d -> b n v
        """Returns the scores of codes."""
        if self.config.head_norm:
            hidden = self.head_norm(hidden)
        return self.head(hidden, self.embedding)[..., : self.config.codebook]

    def fsdp_units(self) -> list[nn.Module]:
        """Returns what is sharded as a unit."""
        encoder = getattr(self.prompt, "encoder", None)
        return [*([] if encoder is None else encoder.fsdp_units()), *self.backbone.fsdp_units()]
