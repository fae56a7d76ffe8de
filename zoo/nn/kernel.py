"""Attention kernels: outputs from projected q, k and v. The seam at which exact, local and
linear attention swap."""

# b batch, h heads, g key heads, q queries, k keys, c channels of a head

from __future__ import annotations

from contextlib import nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.nn import native
from zoo.nn.mask import Mask
from zoo.nn.matmul import has_tiles
from zoo.nn.native import Places
from zoo.nn.schema import PlainKernelConfig, SDPAKernelConfig

__all__ = ["Kernel", "PlainKernel", "SDPAKernel", "attention_weights"]


class Kernel(nn.Module):
    """The interface. `can` names what a kernel supports; `needs` checks it when a model is
    built, by name.

    Capabilities: causal, cross (keys of another sequence), padding, prefix, window, segments,
        grid, dense, bias (added to
    the scores), cache (keys of earlier steps), dropout.
    """

    can: ClassVar[frozenset[str]] = frozenset()

    def needs(self, wanted: set[str]) -> None:
        """Raises ConfigError naming what is asked of the kernel and not supported."""
        missing = sorted(wanted - self.can)
        if missing:
            name = getattr(self, "name", type(self).__name__)
            raise ConfigError(
                f"Kernel {name!r} cannot do: {', '.join(missing)}; kernel 'sdpa' can do all of it."
            )

    def attend(
        self,
        q: Tensor,  # b h q c
        k: Tensor,  # b g k c
        v: Tensor,  # b g k c
        mask: Mask,
        bias: Tensor | None,  # b|1 h q k
        scale: float,
        state: object | None = None,
        dropout: float = 0.0,
    ) -> tuple[Tensor, object | None]:
        """Returns (output b h q c, new state)."""
        raise NotImplementedError

    def attend_slots(
        self,
        q: Tensor,
        slots: Tensor,
        places: Places | None,
        scale: float,
        window: int | None = None,
    ) -> Tensor | None:
        """Attends one query of each sequence (b h 1 c) to keys and values of its own, which lie
        somewhere in slots (2 g s c), in one call; None where a call for each is needed."""
        return None

    def keep(self, x: Tensor) -> Tensor:  # b g k c -> b g k c
        """Returns keys or values in the form in which they are read fastest, again and again."""
        return x.contiguous()


EVERYTHING = frozenset(
    {
        "causal",
        "cross",
        "padding",
        "prefix",
        "window",
        "segments",
        "grid",
        "dense",
        "bias",
        "cache",
        "dropout",
    }
)


NOTHING = nullcontext()
BLOCK_QUERIES = 128  # of one head, whose scores are in memory at once


class SDPAKernel(Kernel):
    """PyTorch's fused attention. Memory is linear in n also on a CPU."""

    can = EVERYTHING

    def __init__(self, config: SDPAKernelConfig) -> None:
        super().__init__()
        self.backend = config.backend

    def attend(self, q, k, v, mask, bias, scale, state=None, dropout=0.0):
        queries, keys = q.shape[2], k.shape[2]
        plain = mask.rules <= {"causal", "window"} and mask.place is None
        if plain and self._reads(q, k, v, dropout):
            wide = None if bias is None else bias.float()
            if wide is None or (len(wide) == 1 and wide.stride(3) == 1):
                return native.attend(q, k, v, wide, scale, window=mask.window), state
        if self._chooses(dropout) and native.attends_many(q, k, v):
            pieces = mask.pieces(queries, keys, q.device, bias)
            return native.attend_many(q, k, v, scale, *pieces), state
        if (queries == 1 and _widened(q)) or k.dtype != q.dtype:
            wide = None if bias is None else bias.float()
            out, _ = self.attend(q.float(), k.float(), v.float(), mask, wide, scale, None, dropout)
            return out.to(q.dtype), state
        rules = mask.rules
        whole = not rules and bias is None and not dropout and self.backend == "auto"
        if whole and queries >= BLOCK_QUERIES and _widened(q) and not torch.is_grad_enabled():
            return _attend_blocks(q, k, v, scale), state
        causal = False
        if rules == {"causal"} and bias is None and (queries == keys or queries == 1):
            causal, dense = queries > 1, None  # one query at the end sees everything
        else:
            dense = mask.matrix(queries, keys, q.device, bias)
        grouped = q.shape[1] != k.shape[1]
        if grouped and queries == 1 and self._groups_itself(q, dropout):
            return _grouped_row(q, k, v, dense, scale), state
        with NOTHING if self.backend == "auto" else self._chosen():
            out = F.scaled_dot_product_attention(
                q, k, v, dense, dropout, causal, scale=scale, enable_gqa=grouped
            )
        return out, state

    def _chooses(self, dropout: float) -> bool:
        """Returns whether another kernel than PyTorch's may be taken."""
        return self.backend == "auto" and not dropout

    def _reads(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> bool:
        return self._chooses(dropout) and native.attends(q, k, v)

    def attend_slots(self, q, slots, places, scale, window=None):
        k, v = slots[:, None]
        if places is None or not self._reads(q, k, v, 0.0):
            return None
        return native.attend(q, k, v, None, scale, places, window)

    def _groups_itself(self, q: Tensor, dropout: float) -> bool:
        """Returns whether two products are faster than PyTorch's kernel, which reads keys once for
        every head of a group: for one query on a CPU they take half the time."""
        plain = q.device.type == "cpu" and self._chooses(dropout)
        return plain and not torch.is_grad_enabled() and not torch.compiler.is_compiling()

    def keep(self, x: Tensor) -> Tensor:
        return (x.float() if _widened(x) else x).contiguous()

    def _chosen(self):
        from torch.nn.attention import SDPBackend, sdpa_kernel

        return sdpa_kernel(
            {
                "flash": SDPBackend.FLASH_ATTENTION,
                "efficient": SDPBackend.EFFICIENT_ATTENTION,
                "math": SDPBackend.MATH,
                "cudnn": SDPBackend.CUDNN_ATTENTION,
            }[self.backend]
        )


def _grouped_row(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attention of one query (b h 1 c): the heads of a group are the rows of one product."""
    b, g, n, c = k.shape
    scores = (q.view(b, g, -1, c) @ k.transpose(2, 3)).mul_(scale)  # b g h/g k
    if mask is None:
        return (scores.softmax(-1) @ v).view(q.shape)
    if mask.shape[1] > 1:  # b|1 h 1 k
        mask = mask.view(len(mask), g, -1, n)
    if mask.dtype == torch.bool:
        scores.masked_fill_(~mask, float("-inf"))
    else:
        scores = scores + mask
    weights = scores.softmax(-1).nan_to_num_(0.0)  # who may see nothing gets zeros, as in SDPA
    return (weights @ v).view(q.shape)


def _widened(x: Tensor) -> bool:
    """Returns whether PyTorch's bf16 kernel is best left aside: without tiles it takes, for one
    query, twice the time of converting and fp32's."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and not has_tiles()


def _attend_blocks(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:  # b h q c, b g k c
    """Returns softmax(q k^T * scale) v by oneDNN's products, some queries at a time: in bf16 they
    take two thirds of the time of PyTorch's fused kernel where there are no tiles."""
    b, h, n, c = q.shape
    groups = k.shape[1]
    q = (q * scale).reshape(b * groups, h // groups * n, c)
    k, v = (x.reshape(b * groups, -1, c) for x in (k, v))
    k = k.transpose(1, 2)
    found = [(part @ k).softmax(-1) @ v for part in q.split(BLOCK_QUERIES, 1)]
    return torch.cat(found, 1).view(b, h, n, c)


def attention_weights(
    q: Tensor, k: Tensor, mask: Mask, bias: Tensor | None, scale: float, float32: bool = False
) -> Tensor:
    """Returns softmax(q k^T * scale + bias), b h q k; a query that may see nothing gets zeros,
    as in SDPA."""
    if k.shape[1] != q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = (q @ k.to(q.dtype).transpose(-1, -2)) * scale
    if bias is not None:
        scores = scores + bias
    allowed = mask.matrix(q.shape[2], k.shape[2], q.device)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype) if float32 else scores.softmax(-1)
    return weights if allowed is None else weights.nan_to_num(0.0)


class PlainKernel(Kernel):
    """The same written out, with the n^2 weights in memory: the reference for tests and for
    looking at attention."""

    can = EVERYTHING

    def __init__(self, config: PlainKernelConfig) -> None:
        super().__init__()
        self.float32 = config.softmax == "float32"

    def attend(self, q, k, v, mask, bias, scale, state=None, dropout=0.0):
        weights = attention_weights(q, k, mask, bias, scale, self.float32)
        if dropout:
            weights = F.dropout(weights, dropout)
        if v.shape[1] != q.shape[1]:
            v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        return weights @ v, state
