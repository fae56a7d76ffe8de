"""Vector quantization: plain, factorised, of unit length, by gradient or by running means."""

# ... any batch and grid, n vectors, w channels of a code, k codes

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from zoo.tokenizers.visual.quantizers.base import Quantizer, in_chunks, straight_through
from zoo.tokenizers.visual.schema import VectorQuantizerConfig

__all__ = ["VectorQuantizer"]

_EPS = 1e-5  # of the smoothing of counts, as a part of a vector
_MEMORY = 0.99  # of the counts that revival looks at, where no running means are kept


class VectorQuantizer(Quantizer):
    """The table is `table` (k w); counts and sums are kept where a rule needs them."""

    config: VectorQuantizerConfig
    table: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(
        self, config: VectorQuantizerConfig, width: int, out: int | None, **_: Any
    ) -> None:
        inner = config.width or width
        maps = config.width is not None or None  # even where the widths agree
        super().__init__(config, width, out, inner, map_in=maps, map_out=maps, bias=config.bias)
        if config.ema is None:
            self.table = nn.Parameter(torch.empty(config.size, inner))
        else:
            self.register_buffer("table", torch.empty(config.size, inner))
        if config.ema is not None or config.revive is not None:
            self.register_buffer("counts", torch.empty(config.size))
        if config.ema is not None:
            self.register_buffer("sums", torch.empty(config.size, inner))

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.table, -1 / self.size, 1 / self.size)
        if self.config.l2:
            nn.init.normal_(self.table)
            self.table.copy_(F.normalize(self.table, dim=-1))
        if hasattr(self, "counts"):
            self.counts.fill_(1.0)
        if hasattr(self, "sums"):
            self.sums.copy_(self.table)

    def choose(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        dtype, x = x.dtype, x.float()
        if self.config.l2:
            x = F.normalize(x, dim=-1)
        table = self._rows().float()
        flat = x.detach().flatten(0, -2)
        ids = in_chunks(flat, self.size, lambda part: self._nearness(part, table.detach()))
        codes = F.embedding(ids, table).view_as(x)
        losses = {}
        if self.training:
            losses["commitment"] = self.config.commitment * F.mse_loss(x, codes.detach())
            if self.config.ema is None:
                losses["codebook"] = F.mse_loss(codes, x.detach())
            self._keep_books(flat, ids)
        return ids.view(x.shape[:-1]), straight_through(x, codes.detach()).to(dtype), losses

    def codes_of(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self._rows())

    def _rows(self) -> Tensor:
        return F.normalize(self.table, dim=-1) if self.config.l2 else self.table

    def _nearness(self, x: Tensor, table: Tensor) -> Tensor:  # n w -> n k
        if self.config.l2:
            return x @ table.T
        return 2 * x @ table.T - table.square().sum(-1) - x.square().sum(-1, keepdim=True)

    # -- running means and revival -----------------------------------------------------------------

    @torch.no_grad()
    def _keep_books(self, x: Tensor, ids: Tensor) -> None:  # n w, n
        if not hasattr(self, "counts"):
            return
        config = self.config
        counts = _total(torch.bincount(ids, minlength=self.size).to(x.dtype))
        memory = _MEMORY if config.ema is None else config.ema
        self.counts.lerp_(counts.to(self.counts), 1 - memory)
        if config.ema is not None:
            sums = _total(torch.zeros_like(self.sums).index_add_(0, ids, x.to(self.sums)))
            self.sums.lerp_(sums, 1 - memory)
            total = self.counts.sum()
            smooth = (self.counts + _EPS) / (total + self.size * _EPS) * total
            means = self.sums / smooth[:, None]
            self.table.copy_(F.normalize(means, dim=-1) if config.l2 else means)
        if config.revive is not None:
            self._revive(x, config.revive)

    def _revive(self, x: Tensor, least: float) -> None:
        """Puts codes that hardly anything uses onto vectors of this batch, the same ones in every
        process."""
        even = self.counts.sum() / self.size
        dead = (self.counts < least * even).nonzero()[:, 0]
        dead = dead[torch.randperm(len(dead), device=x.device)[: len(x)]]
        chosen = x[torch.randperm(len(x), device=x.device)[: len(dead)]].to(self.table)
        if _processes() > 1:
            for tensor in (dead, chosen):
                dist.broadcast(tensor, 0)
        self.table[dead] = chosen
        self.counts[dead] = even
        if hasattr(self, "sums"):
            self.sums[dead] = chosen * even


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _total(tensor: Tensor) -> Tensor:
    """Returns the sum over all processes."""
    if _processes() > 1:
        dist.all_reduce(tensor)
    return tensor
