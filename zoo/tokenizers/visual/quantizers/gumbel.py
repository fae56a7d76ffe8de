"""A relaxed categorical choice: the discrete VAE's."""

# ... any batch and grid, w channels of a code, k codes

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.linear import Linear, fill_normal_
from zoo.tokenizers.visual.quantizers.base import Quantizer
from zoo.tokenizers.visual.schema import GumbelQuantizerConfig

__all__ = ["GumbelQuantizer"]


class GumbelQuantizer(Quantizer):
    """In training codes are mixed by a Gumbel-softmax, in evaluation the most probable one stands.

    `subpixels` is how many numbers of the picture one place stands for: the divergence is divided
    by it, so that it and a reconstruction loss per subpixel form one bound per subpixel.
    """

    config: GumbelQuantizerConfig

    def __init__(
        self, config: GumbelQuantizerConfig, width: int, out: int | None, *, subpixels: int = 1
    ) -> None:
        own = config.width is not None  # else the choice is made from the encoder's channels
        inner, read = config.width or out, config.width or width
        super().__init__(
            config, width, out, inner or 0, map_in=own, map_out=own and out is not None
        )
        self.logits = Linear(read, config.size, std=config.scale * read**-0.5)
        # without a decoder nobody says how wide a code's vector is
        self.table = nn.Parameter(torch.empty(config.size, inner)) if inner else None
        self.bias = nn.Parameter(torch.empty(inner)) if inner and config.bias else None
        self.subpixels = subpixels
        self.temperature, self.kl = config.temperature, config.kl

    def reset_parameters(self) -> None:
        if self.table is not None:
            fill_normal_(self.table, 1.0)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def anneal(self, share: float) -> None:
        config = self.config
        done = min(share / config.anneal, 1.0)
        fall = (1 + math.cos(math.pi * done)) / 2  # 1 to 0
        self.temperature = config.temperature_end + fall * (
            config.temperature - config.temperature_end
        )
        grown = min(share / config.kl_warmup, 1.0) if config.kl_warmup else 1.0
        self.kl = config.kl * (1 - math.cos(math.pi * grown)) / 2

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        logits = self.logits(x)
        ids = logits.argmax(-1)
        if self.table is None:
            return ids, x, {}
        if not self.training:
            return ids, self.codes_of(ids), {}
        share = F.gumbel_softmax(logits.float(), self.temperature, hard=self.config.hard)
        log_q = logits.float().log_softmax(-1)
        # A mean over places, pictures and processes: the same picture twice is no larger loss.
        losses = {"kl": self.kl * self._divergence(log_q).mean() / self.subpixels}
        if self.config.diversity:
            mean = log_q.flatten(0, -2).logsumexp(0) - math.log(log_q.numel() // self.size)
            losses["diversity"] = self.config.diversity * self._divergence(mean) / self.subpixels
        codes = share.to(self.table) @ self.table
        codes = codes if self.bias is None else codes + self.bias
        return ids, codes, losses

    def _divergence(self, log_q: Tensor) -> Tensor:  # ... k -> ...
        """Returns how far choices are from even ones, in nats."""
        return (log_q.exp() * (log_q + math.log(self.size))).sum(-1)

    def codes_of(self, ids: Tensor) -> Tensor:
        assert self.table is not None, "without a decoder there is nothing to look up"
        codes = F.embedding(ids, self.table)
        return codes if self.bias is None else codes + self.bias
