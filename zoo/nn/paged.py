"""A paged cache: keys and values in pages of a pool that many sequences share (Kwon et al. 2023,
arXiv 2309.06180).

A sequence is a table of pages. Forks share pages until one of them writes (copy on write); a page
goes back to the pool when nobody holds it. Sequences of a batch may have different lengths: what is
read is aligned to the right, with `mask()` saying which keys are real, so that attention sees them
as it sees left padding. Gathering pages before attention is exact and runs everywhere; it is also
what a fused paged kernel is tested against.
"""

# b batch, g key heads, n tokens, c channels of a head, s slots (pages * page size)

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import ConfigError

__all__ = ["PagePool", "PagedCache"]


class PagePool:
    """Pages of keys and values for every layer of one model. Costs 2 L s g c numbers, at once."""

    def __init__(
        self,
        pages: int,
        page: int,
        layers: int,
        heads: int,
        channels: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.page = page
        shape = (layers, 2, pages * page, heads, channels)
        self.slots = torch.zeros(shape, dtype=dtype, device=device)
        self.available = list(range(pages - 1, -1, -1))
        self.holders = [0] * pages  # how many tables hold each page

    @property
    def nbytes(self) -> int:
        """Bytes of the pool, used or not."""
        return self.slots.nbytes

    @property
    def used(self) -> int:
        """Pages held by some sequence."""
        return len(self.holders) - len(self.available)

    def take(self) -> int:
        """Returns a free page; raises ConfigError when there is none."""
        if not self.available:
            raise ConfigError(
                f"All {len(self.holders)} pages of {self.page} tokens are in use; finish a request "
                "or make the pool larger."
            )
        page = self.available.pop()
        self.holders[page] = 1
        return page

    def share(self, page: int) -> None:
        """Notes one more holder."""
        self.holders[page] += 1

    def give(self, page: int) -> None:
        """Notes one holder less; the last one frees the page."""
        self.holders[page] -= 1
        if self.holders[page] == 0:
            self.available.append(page)

    def copy(self, page: int) -> int:
        """Returns a new page with the content of another."""
        new = self.take()
        size = self.page
        source = self.slots[:, :, page * size : (page + 1) * size]
        self.slots[:, :, new * size : (new + 1) * size] = source
        return new


class Sequence:
    """One sequence's table of pages and its length."""

    def __init__(self, pool: PagePool) -> None:
        self.pool, self.pages, self.length = pool, [], 0  # type: ignore[var-annotated]

    def extend(self, count: int) -> None:
        """Makes room for `count` more tokens, in pages that nobody else writes to."""
        pool = self.pool
        short = -(-(self.length + count) // pool.page) - len(self.pages)
        shared = self.shares_its_end()
        if short + shared > len(pool.available):
            raise ConfigError(
                f"{count} tokens need {short + shared} pages and "
                f"{len(pool.available)} are free; finish a request or make the pool larger."
            )
        if shared:  # copy on write: the tail is about to be written
            old = self.pages[-1]
            self.pages[-1] = pool.copy(old)
            pool.give(old)
        self.pages += [pool.take() for _ in range(short)]
        self.length += count

    def shares_its_end(self) -> bool:
        """Returns whether the page that is written next belongs to others too."""
        return bool(self.length % self.pool.page) and self.pool.holders[self.pages[-1]] > 1

    def rewind(self, length: int) -> None:
        """Forgets tokens from `length` on and gives pages back."""
        self.length = min(self.length, length)
        needed = -(-self.length // self.pool.page)
        for page in self.pages[needed:]:
            self.pool.give(page)
        del self.pages[needed:]

    def fork(self) -> Sequence:
        """Returns a sequence with the same tokens, on the same pages."""
        other = Sequence(self.pool)
        other.pages, other.length = list(self.pages), self.length
        for page in other.pages:
            self.pool.share(page)
        return other

    def slots(self) -> Tensor:
        """Returns the slot of every token, (length)."""
        pages = torch.tensor(self.pages, dtype=torch.long)
        size = self.pool.page
        return (pages[:, None] * size + torch.arange(size)).flatten()[: self.length]


class PagedCache:
    """The cache of a batch of sequences of one pool, whatever their lengths."""

    def __init__(self, pool: PagePool, sequences: list[Sequence] | int = 1) -> None:
        self.pool = pool
        if isinstance(sequences, int):
            sequences = [Sequence(pool) for _ in range(sequences)]
        self.sequences = sequences
        self.memories: dict[int, tuple[Tensor, Tensor]] = {}
        self._table: Tensor | None = None  # slots of the step that runs, b n
        self._coming = 0  # tokens of that step, until its last layer has run

    @property
    def length(self) -> int:
        """Tokens of the longest sequence (they end together, aligned to the right)."""
        return max((s.length for s in self.sequences), default=0) - self._coming

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence."""
        return [s.length for s in self.sequences]

    @property
    def nbytes(self) -> int:
        """Bytes of the pages that these sequences hold, shared ones once."""
        pages = {page for s in self.sequences for page in s.pages}
        return len(pages) * self.pool.page * self.pool.slots[:, :, 0].nbytes

    def mask(self) -> Tensor:
        """Returns which keys are real (b n), those of the step that has begun among them."""
        lengths = torch.tensor(self.lengths, device=self.pool.slots.device)
        place = torch.arange(int(lengths.max()), device=lengths.device)
        return place >= lengths.max() - lengths[:, None]

    def begin(self, count: int) -> None:
        """Makes room for `count` tokens in every sequence: once per step, before the layers run."""
        for sequence in self.sequences:
            sequence.extend(count)
        longest, device = max(s.length for s in self.sequences), self.pool.slots.device
        table = torch.zeros(len(self.sequences), longest, dtype=torch.long)
        for row, sequence in enumerate(self.sequences):
            table[row, longest - sequence.length :] = sequence.slots()
        self._table, self._coming = table.to(device), count

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        count = k.shape[2]
        assert self._table is not None, "PagedCache.begin starts a step"
        new = self._table[:, -count:]  # b n
        keys, values = self.pool.slots[layer]
        keys[new] = k.transpose(1, 2).to(keys.dtype)
        values[new] = v.transpose(1, 2).to(values.dtype)
        if layer == self.pool.slots.shape[0] - 1:
            self._coming = 0
        return keys[self._table].transpose(1, 2), values[self._table].transpose(1, 2)

    def memory(self, layer: int) -> tuple[Tensor, Tensor] | None:
        return self.memories.get(layer)

    def keep_memory(self, layer: int, k: Tensor, v: Tensor) -> None:
        self.memories[layer] = (k, v)

    def rewind(self, length: int) -> None:
        """Forgets every token from `length` of the longest sequence on: all lose as many."""
        less = max(self.length - length, 0)
        for sequence in self.sequences:
            sequence.rewind(max(sequence.length - less, 0))

    def select(self, rows: Tensor) -> None:
        chosen = [self.sequences[i].fork() for i in rows.tolist()]
        for sequence in self.sequences:
            sequence.rewind(0)
        self.sequences = chosen
        for layer, (k, v) in self.memories.items():
            self.memories[layer] = (k.index_select(0, rows), v.index_select(0, rows))

    def fork(self) -> PagedCache:
        other = PagedCache(self.pool, [s.fork() for s in self.sequences])
        other.memories = dict(self.memories)
        return other

    def free(self) -> None:
        for sequence in self.sequences:
            sequence.rewind(0)
        self.memories = {}
