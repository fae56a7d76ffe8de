"""A paged cache: keys and values in pages of a pool that many sequences share (Kwon et al. 2023,
arXiv 2309.06180).

A sequence is a table of pages. Forks share pages until one of them writes (copy on write); a page
goes back to the pool when nobody holds it. Pages of a sequence lie side by side wherever there is
room, and one that knows how long it may get takes them at once: what is read is then a view.

Sequences of a batch may have different lengths. On a CPU attention reads each one's own keys
(`rows`, `where`): nothing is copied, and nobody reads padding. Elsewhere, and for positions that
look at all keys at once, they are gathered and aligned to the right (`append`), with `mask()`
saying which keys are real, as left padding would be. A step may also be ragged: as many new tokens
of each sequence as there are, one sequence after the other in a single row.
"""

# b batch, g key heads, n tokens, c channels of a head, s slots (pages * page size)

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.nn.native import Places, store, zeros
from zoo.nn.native.recording import Keys

__all__ = ["PagePool", "PagedCache", "Sequence"]


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
        shape = (layers, 2, heads, pages * page, channels)
        if torch.device(device).type == "cpu":
            self.slots = zeros(shape, dtype)
        else:
            self.slots = torch.zeros(shape, dtype=dtype, device=device)
        # what a step plays with: of each layer, one row that all sequences share (1 g s c)
        self.pairs = {layer: (k[None], v[None]) for layer, (k, v) in enumerate(self.slots)}
        self.available = set(range(pages))
        self.holders = [0] * pages  # how many tables hold each page

    @property
    def nbytes(self) -> int:
        """Bytes of the pool, used or not."""
        return self.slots.nbytes

    @property
    def used(self) -> int:
        """Pages held by some sequence."""
        return len(self.holders) - len(self.available)

    def take(self, count: int, after: int | None = None) -> list[int]:
        """Returns free pages: those that follow page `after`, else the smallest gap that holds them
        all, else whatever there is. Raises ConfigError when there are too few."""
        if count > len(self.available):
            raise ConfigError(
                f"{count} pages of {self.page} tokens are needed and {len(self.available)} are "
                "free; finish a request or make the pool larger."
            )
        taken: list[int] = []
        if after is not None:
            taken = [p for p in range(after + 1, after + 1 + count) if p in self.available]
        if len(taken) < count:
            gaps = sorted(self._gaps(), key=len)
            whole = [gap for gap in gaps if len(gap) >= count]
            chosen = whole[:1] or gaps[::-1]  # of scattered ones the longest
            taken = [page for gap in chosen for page in gap][:count]
        self.available.difference_update(taken)
        for page in taken:
            self.holders[page] = 1
        return taken

    def _gaps(self) -> list[range]:
        """Returns the runs of free pages."""
        gaps: list[range] = []
        for page in sorted(self.available):
            if gaps and gaps[-1].stop == page:
                gaps[-1] = range(gaps[-1].start, page + 1)
            else:
                gaps.append(range(page, page + 1))
        return gaps

    def share(self, page: int) -> None:
        """Notes one more holder."""
        self.holders[page] += 1

    def give(self, page: int) -> None:
        """Notes one holder less; the last one frees the page."""
        self.holders[page] -= 1
        if self.holders[page] == 0:
            self.available.add(page)

    def copy(self, old: int, new: int) -> None:
        """Copies a page's content to another page."""
        size = self.page
        source = self.slots[:, :, :, old * size : (old + 1) * size]
        self.slots[:, :, :, new * size : (new + 1) * size] = source


class Sequence:
    """One sequence's table of pages."""

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        self.pages: list[int] = []
        self.length = 0

    def reserve(self, length: int) -> None:
        """Takes the pages for so many tokens in all, and its own copy of a shared one that will be
        written; raises ConfigError when there are too few."""
        pool, shared = self.pool, self.shares_its_end()
        short = max(-(-length // pool.page) - len(self.pages), 0)
        if short + shared == 0:
            return
        new = pool.take(short + shared, self.pages[-1] if self.pages and not shared else None)
        if shared:  # copy on write
            old = self.pages.pop()
            pool.copy(old, new[0])
            pool.give(old)
        self.pages += new

    def shares_its_end(self) -> bool:
        """Returns whether the page that is written next belongs to others too."""
        return bool(self.length % self.pool.page) and self.pool.holders[self.pages[-1]] > 1

    def extend(self, count: int) -> None:
        """Makes room for `count` more tokens: takes pages, copies a shared one that it writes
        to."""
        self.reserve(self.length + count)
        self.length += count

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
        other.pages = self.pages[: -(-self.length // self.pool.page)]
        other.length = self.length
        for page in other.pages:
            self.pool.share(page)
        return other

    def slots(self, start: int = 0) -> list[int]:
        """Returns the slot of every token from `start` on."""
        size = self.pool.page
        return [self.pages[i // size] * size + i % size for i in range(start, self.length)]

    def runs(self) -> list[slice]:
        """Returns the slots of all tokens as slices: one, where its pages lie side by side."""
        size, left = self.pool.page, self.length
        found: list[slice] = []
        for page in self.pages[: -(-left // size)]:
            start, stop = page * size, page * size + min(left, size)
            if found and found[-1].stop == start:
                found[-1] = slice(found[-1].start, stop)
            else:
                found.append(slice(start, stop))
            left -= size
        return found


class PagedCache:
    """The cache of a batch of sequences of one pool, whatever their lengths."""

    def __init__(self, pool: PagePool, sequences: list[Sequence] | int = 1) -> None:
        self.pool = pool
        if isinstance(sequences, int):
            sequences = [Sequence(pool) for _ in range(sequences)]
        self.sequences = sequences
        self.memories: dict[int, tuple[Tensor, Tensor]] = {}
        # of the step that runs
        self._new = torch.zeros(0, dtype=torch.long)  # slots of its tokens, b*n
        self._runs: list[list[slice]] = []  # of each sequence
        self._table: Tensor | None = None  # slots of all tokens, b n; made when asked for
        self._where: Places | None = None  # made when asked for
        self._coming = 0  # tokens of each, until its last layer has run
        self.ragged: list[int] | None = None  # tokens of each, where they lie in one row
        self.alone = False  # nobody asks where the others' tokens stand
        self._keys: Keys | None = None

    @property
    def length(self) -> int:
        """Tokens of the longest sequence (they end together, aligned to the right)."""
        return max((s.length for s in self.sequences), default=0) - self._coming

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence."""
        return [s.length for s in self.sequences]

    @property
    def by_row(self) -> bool:
        """Whether each sequence's keys are better read by themselves."""
        return self.ragged is not None or self.pool.slots.device.type == "cpu"

    @property
    def nbytes(self) -> int:
        """Bytes of the pages that these sequences hold, shared ones once."""
        pages = {page for s in self.sequences for page in s.pages}
        return len(pages) * self.pool.page * self.pool.slots[:, :, :, 0].nbytes

    def mask(self) -> Tensor:
        """Returns which keys are real (b n), those of the step that has begun among them."""
        lengths = torch.tensor(self.lengths, device=self.pool.slots.device)
        place = torch.arange(int(lengths.max()), device=lengths.device)
        return place >= lengths.max() - lengths[:, None]

    def begin(self, count: int | list[int], alone: bool = False) -> None:
        """Makes room for `count` tokens in every sequence, or for so many in each (a ragged step):
        once per step, before the layers run. `alone`: no part looks along the row but attention,
        which reads each one's own keys, so that no mask is needed; `places` says where tokens
        stand."""
        self.alone = alone or not isinstance(count, int)
        self.ragged = None if isinstance(count, int) else count
        counts = [count] * len(self.sequences) if isinstance(count, int) else count
        for sequence, more in zip(self.sequences, counts, strict=True):
            sequence.extend(more)
        pairs = zip(self.sequences, counts, strict=True)
        new = [slot for s, more in pairs for slot in s.slots(s.length - more)]
        self._new = torch.tensor(new, device=self.pool.slots.device)
        self._runs = [s.runs() for s in self.sequences]
        self._table = self._where = None
        self._coming = count if isinstance(count, int) else 0

    def places(self) -> Tensor:
        """Returns where the tokens of a step stand, each in its own sequence: b n, or 1 n of a
        ragged one."""
        device = self.pool.slots.device
        if self.ragged is None:
            counts = range(self._coming)
            return torch.tensor(
                [[s.length - self._coming + i for i in counts] for s in self.sequences],
                device=device,
            )
        pairs = zip(self.sequences, self.ragged, strict=True)
        found = [torch.arange(s.length - count, s.length) for s, count in pairs]
        return torch.cat(found)[None].to(device)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.write(layer, k, v)
        if len(self._runs) == 1:
            return self._read(layer, self._runs[0])
        keys, values = self.pool.slots[layer]
        if self._table is None:
            longest = max(self.lengths)
            rows = [[0] * (longest - s.length) + s.slots() for s in self.sequences]
            self._table = torch.tensor(rows, device=keys.device)
        return keys[:, self._table].transpose(0, 1), values[:, self._table].transpose(0, 1)

    def rows(self, layer: int) -> list[tuple[Tensor, Tensor]]:
        """Returns each sequence's own keys and values of a layer (1 g n c), without padding."""
        return [self._read(layer, runs) for runs in self._runs]

    def where(self) -> Places | None:
        """Returns where each sequence's slots are, or None when one's do not lie side by side."""
        if self._where is None and all(len(runs) == 1 for runs in self._runs):
            starts = [runs[0].start for runs in self._runs]
            self._where = Places(starts, self.lengths)
        return self._where

    def step_keys(self) -> Keys | None:
        """Returns where a step of one token finds keys and values, or None: one sequence's do not
        lie side by side, or it is ragged (zoo.nn.replay)."""
        where = None if self.ragged is not None or not self.by_row else self.where()
        if where is None or len(self._new) != len(self.sequences):
            return None
        if self._keys is None:
            self._keys = Keys(self.pool.pairs, self.memories)
        self._keys.slots, self._keys.where = self._new, where
        return self._keys

    def retry(self, keys: Keys) -> None:
        """Makes ready for the step with these keys once more."""
        self._coming = 1

    def advance(self) -> None:
        """Notes that every layer has the tokens of the step, which were put there by others."""
        self._coming = 0

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Adds new keys and values of a layer (b g n c)."""
        keys, values = self.pool.slots[layer]
        store(k, keys, self._new)
        store(v, values, self._new)
        if layer == self.pool.slots.shape[0] - 1:
            self._coming = 0

    def _read(self, layer: int, runs: list[slice]) -> tuple[Tensor, Tensor]:
        both = self.pool.slots[layer]
        if len(runs) == 1:
            k, v = both[:, None, :, runs[0]]
        else:
            k, v = torch.cat([both[:, None, :, run] for run in runs], dim=3)
        return k, v

    def memory(self, layer: int) -> tuple[Tensor, Tensor] | None:
        return self.memories.get(layer)

    def keep_memory(self, layer: int, k: Tensor, v: Tensor) -> None:
        self.memories[layer], self._keys = (k, v), None

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
        self._keys = None

    def fork(self) -> PagedCache:
        other = PagedCache(self.pool, [s.fork() for s in self.sequences])
        other.memories = dict(self.memories)
        return other

    def free(self) -> None:
        for sequence in self.sequences:
            sequence.rewind(0)
        self.memories, self._keys = {}, None
