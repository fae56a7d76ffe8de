"""Decoder-only language models."""

# b batch, n new tokens, k past and new tokens, v vocabulary, d width

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.models.text.common import TextOutput, TokenEmbedding, TokenHead, as_mask
from zoo.models.text.schema import CausalLMConfig
from zoo.models.text.verbs import CausalVerbs
from zoo.nn.attention import Record
from zoo.nn.cache import Cache
from zoo.nn.mask import Mask
from zoo.registry import build

__all__ = ["CausalLM"]


class CausalLM(nn.Module, CausalVerbs):
    """Tokens in, scores of the next token at every place out."""

    def __init__(self, config: CausalLMConfig) -> None:
        super().__init__()
        self.config = config
        backbone = config.backbone
        self.embedding = TokenEmbedding(
            config, backbone.width, backbone.init_std, config.vocabulary
        )
        self.backbone = build(backbone)
        if config.prefix_lm:
            for layer in self.backbone.layers:
                if not hasattr(layer.attention, "kernel"):
                    kind = backbone.attention.zoo_kind
                    raise ConfigError(f"prefix_lm: attention {kind!r} reads in one direction only.")
                layer.attention.kernel.needs({"prefix"})
        self.head = TokenHead(
            config, backbone.width, backbone.norm, backbone.init_std, config.vocabulary
        )

    def forward(
        self,
        tokens: Tensor | None,  # b n
        mask: Tensor | Mask | None = None,  # b k, 1 for real tokens; or b|1 1 n k, and causal
        *,
        prefix: Tensor | None = None,  # b, lengths that are seen in both directions (prefix-LM)
        cache: Cache | None = None,
        record: Record | None = None,
        last: bool | Tensor = False,  # logits of the last token only, or of those (m) places
        embedded: Tensor | None = None,  # b n d, in place of tokens (vision-language models)
    ) -> TextOutput:
        """Positions follow the mask, so left padding, right padding and single runs agree.

        Prefixes count real tokens (arXiv 1910.10683, section 3.2.1); with `prefix_lm`, what first
        fills a cache is one.
        """
        x = self.embedding(tokens) if embedded is None else embedded
        if prefix is None and self.config.prefix_lm and cache is not None and cache.length == 0:
            prefix = torch.full(x.shape[:1], x.shape[1], device=x.device)
        x = self.backbone(x, mask=as_mask(mask, prefix), cache=cache, record=record)
        asked = x
        if last is not False:
            asked = x[:, -1:] if last is True else x[:, last]
        return TextOutput(self.head(asked, self.embedding), x)

    def fixed_scores(
        self, tokens: Tensor, mask: Tensor | None, cache: Cache, last: bool
    ) -> Tensor:  # b n -> b n v
        """Returns the logits; what `zoo.generation.fixed` captures or compiles."""
        return self(tokens, mask, cache=cache, last=last).logits

    def fsdp_units(self) -> list[nn.Module]:
        """Returns what is sharded as a unit."""
        return self.backbone.fsdp_units()
