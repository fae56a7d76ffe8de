"""Lookup-free quantization."""

# ... any batch and grid, n vectors, w bits, k codes

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.tokenizers.visual.quantizers.base import Quantizer, straight_through
from zoo.tokenizers.visual.schema import LookupFreeQuantizerConfig

__all__ = ["LookupFreeQuantizer"]


class LookupFreeQuantizer(Quantizer):
    """A code is the signs of its channels, the first one the highest bit of its id."""

    config: LookupFreeQuantizerConfig

    def __init__(self, config: LookupFreeQuantizerConfig, width: int, out: int | None, **_: object):
        super().__init__(config, width, out, config.bits)

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        dtype, x = x.dtype, x.float()
        bits = x > 0
        codes = bits.float() * 2 - 1
        ids = (bits.long() * self._places(x)).sum(-1)
        losses = {}
        if self.training:
            losses["commitment"] = self.config.commitment * F.mse_loss(x, codes)
            losses["entropy"] = self.config.entropy * self._entropy(x.flatten(0, -2))
        return ids, straight_through(x, codes).to(dtype), losses

    def codes_of(self, ids: Tensor) -> Tensor:
        bits = (ids[..., None] & self._places(ids)) != 0
        weight = next(self.parameters(), None)
        return bits.to(torch.float32 if weight is None else weight.dtype) * 2 - 1

    def _entropy(self, x: Tensor) -> Tensor:  # n w -> scalar
        """Each vector should be sure of its code, all of them together should use every code."""
        # Distances to all 2^w codes, up to what is the same for all; a product of independent bits,
        # so that nothing of size n 2^w is needed for the first term.
        logits = 4 * self.config.sharpness * x  # of a bit being 1 against 0
        sure = _bit_entropy(logits).sum(-1).mean()
        codes = self.codes_of(torch.arange(self.size, device=x.device)).float()
        choice = (2 * self.config.sharpness * x @ codes.T).softmax(-1)  # n k
        mean = choice.mean(0)
        spread = -(mean * mean.clamp(min=1e-5).log()).sum()
        return sure - self.config.diversity * spread

    def _places(self, like: Tensor) -> Tensor:  # w
        return 2 ** torch.arange(self.config.bits - 1, -1, -1, device=like.device)


def _bit_entropy(logits: Tensor) -> Tensor:
    """Returns the entropy in nats of bits with these log-odds."""
    return F.softplus(logits) - logits * logits.sigmoid()
