"""The rows of a weight map: which public tensors become which of ours, and how. Needs no torch.

Every row is a join of public parts, then steps, then a split into our parts; `Rename` has one part
on each side, `Fuse` several public ones, `Split` several of ours. A part can have steps of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from zoo.errors import WeightsError
from zoo.weights.derived import Filled, Joined, Same, cut, stepped, undone
from zoo.weights.lazy import LazyTensor, as_lazy, describe, same_bits
from zoo.weights.patterns import Pattern
from zoo.weights.steps import Misfit, Shape, Step

if TYPE_CHECKING:
    import torch

__all__ = [
    "Compute",
    "Drop",
    "Fill",
    "Fuse",
    "Link",
    "Optional",
    "Part",
    "Rename",
    "Rule",
    "Split",
    "Tie",
]


@dataclass(frozen=True)
class Fill:
    """A part of ours that the public file does not have: filled with a number on loading, and on
    export left out after checking that it is still that number.

    `harmless` says that any number there gives the same function (a key bias, which softmax
    cancels but an optimiser may have moved), so that export leaves it out unchecked.
    """

    shape: Shape
    value: float = 0.0
    harmless: bool = False


@dataclass(frozen=True)
class Part:
    """One name pattern of a row, with the steps that its tensor takes before the join or after
    the split. Written as `"name"` or `("name", Step(), ...)`."""

    pattern: Pattern
    steps: tuple[Step, ...] = ()


Written: TypeAlias = "str | tuple[str | Step, ...] | Fill"
Found: TypeAlias = Mapping[int, LazyTensor]  # position in the row -> tensor


def _part(written: Written) -> Part | Fill:
    if isinstance(written, Fill):
        return written
    name, *steps = (written,) if isinstance(written, str) else written
    if not isinstance(name, str) or not all(isinstance(step, Step) for step in steps):
        raise WeightsError(f"{written!r} is no part of a weight map; write a name and its steps.")
    return Part(Pattern(name), tuple(steps))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Rule:
    """A row: patterns on the public side, patterns on ours."""

    sources: tuple[Part | Fill, ...] = ()
    targets: tuple[Part, ...] = ()
    # whether the public file may do without it
    optional: bool = False

    def __post_init__(self) -> None:
        parts = (*self.sources, *self.targets)
        patterns = [part.pattern for part in parts if isinstance(part, Part)]
        names = ", ".join(f"'{pattern.text}'" for pattern in patterns)
        kinds = {(pattern.stars, pattern.prefix) for pattern in patterns}
        if self.filled:
            kinds.add((0, False))  # with nothing to be found, no number and no tail is known
        if len(kinds) > 1 and not isinstance(self, Dropped):
            raise WeightsError(f"{names}: a row of a weight map needs the same '*' in every name.")

    @property
    def filled(self) -> bool:
        """Whether the public side of the row is filled in, wholly."""
        return bool(self.sources) and all(isinstance(part, Fill) for part in self.sources)

    def name(self, position: int, numbers: tuple[str, ...] | None = None, tail: str = "") -> str:
        """The public name at `position`, or its pattern where no numbers are given."""
        part = self.sources[position]
        if isinstance(part, Fill):
            return f"({part.value:g})"
        return part.pattern.text if numbers is None else part.pattern.fill(numbers, tail)

    def under(self, source: str, target: str) -> Rule:
        """The same row with every public name under `source` and each of ours under `target`."""

        def moved(part: Part, prefix: str) -> Part:
            return replace(part, pattern=Pattern(prefix + part.pattern.text))

        return replace(
            self,
            sources=tuple(p if isinstance(p, Fill) else moved(p, source) for p in self.sources),
            targets=tuple(moved(part, target) for part in self.targets),
        )

    def forward(self, found: Found, dtype: str) -> list[LazyTensor]:
        """Our tensors, lazily, from the public ones by position (those that were found).

        `dtype` is for what is filled in alone. Raises Misfit.
        """
        raise NotImplementedError

    def backward(self, given: Found) -> list[torch.Tensor | None]:
        """The public tensors (None: not written) from ours by position. Raises Misfit."""
        raise NotImplementedError

    def needed_sources(self) -> set[int]:
        """Positions of the public parts that must all be there."""
        return {slot for slot, part in enumerate(self.sources) if isinstance(part, Part)}

    def needed_targets(self) -> set[int]:
        """Positions of our parts that must all be there on export."""
        return set(range(len(self.targets)))


@dataclass(frozen=True)
class Link(Rule):
    """Join the public parts along `dim`, take the steps, split into ours along `dim`."""

    steps: tuple[Step, ...] = ()
    dim: int = 0
    # rows that each part takes of the whole; None: all the same
    sizes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = max(len(self.sources), len(self.targets))
        if self.sizes is not None and len(self.sizes) != parts:
            raise WeightsError(f"A row with {parts} parts was given {len(self.sizes)} sizes.")

    def forward(self, found: Found, dtype: str) -> list[LazyTensor]:
        given = next((lazy.dtype for lazy in found.values()), dtype)
        parts = [
            Filled(part.shape, part.value, given)
            if isinstance(part, Fill)
            else stepped(found[slot], part.steps)
            for slot, part in enumerate(self.sources)
        ]
        whole = stepped(parts[0] if len(parts) == 1 else self._join(parts), self.steps)
        if len(self.targets) == 1:
            return [stepped(whole, self.targets[0].steps)]
        pieces = cut(whole, self.dim, self._sizes(whole.shape, len(self.targets)))
        return [stepped(p, part.steps) for p, part in zip(pieces, self.targets, strict=True)]

    def _join(self, parts: list[LazyTensor]) -> LazyTensor:
        whole = Joined(parts, self.dim)
        given = tuple(part.shape[self.dim] for part in parts)
        wanted = self._sizes(whole.shape, len(parts))
        if given != wanted:
            raise Misfit(f"should have {describe(wanted)} rows, not {describe(given)}")
        return whole

    def _sizes(self, shape: Shape, parts: int) -> Shape:
        if self.dim >= len(shape):
            raise Misfit(f"should have a dimension {self.dim}")
        total = shape[self.dim]
        if self.sizes is None and total % parts:
            raise Misfit(f"should have a number of rows that {parts} divides, not {total}")
        sizes = self.sizes or (total // parts,) * parts
        if sum(sizes) != total:
            raise Misfit(f"should have {sum(sizes)} rows, not {total}")
        return sizes

    def backward(self, given: Found) -> list[torch.Tensor | None]:
        ours = [undone(given[slot].read(), part.steps) for slot, part in enumerate(self.targets)]
        joined = ours[0] if len(ours) == 1 else self._join([*map(as_lazy, ours)]).read()
        whole = undone(joined, self.steps)
        pieces: Sequence[torch.Tensor] = [whole]
        if len(self.sources) > 1:
            pieces = whole.split(self._sizes(tuple(whole.shape), len(self.sources)), self.dim)
        return [_public(part, piece) for part, piece in zip(self.sources, pieces, strict=True)]


@dataclass(frozen=True)
class Tied(Rule):
    """All names on both sides stand for one tensor."""

    steps: tuple[Step, ...] = ()
    # how many of the public names export writes, from the first on
    writes: int = 1

    def forward(self, found: Found, dtype: str) -> list[LazyTensor]:
        first, *others = (found[slot] for slot in sorted(found))
        if any((other.shape, other.dtype) != (first.shape, first.dtype) for other in others):
            raise Misfit("should be one tensor under all their names")
        if others:
            label = " and ".join(f"'{self.name(slot)}'" for slot in sorted(found))
            first = Same(first, others, label)
        return [stepped(first, self.steps)] * len(self.targets)

    def backward(self, given: Found) -> list[torch.Tensor | None]:
        first, *others = (given[slot] for slot in sorted(given))
        if not all(same_bits(first, other) for other in others):
            raise Misfit("should be one tensor under all their names, but differ")
        tensor = undone(first.read(), self.steps)
        return [tensor if slot < self.writes else None for slot in range(len(self.sources))]

    def needed_sources(self) -> set[int]:
        return set()

    def needed_targets(self) -> set[int]:
        return set()


@dataclass(frozen=True)
class Dropped(Rule):
    """Public names that mean nothing here (masks, position numbers) and are not written."""


@dataclass(frozen=True)
class Computed(Dropped):
    """A public tensor that is computed here (a table of sines): held against the file's on loading,
    written on export."""

    make: Callable[[], torch.Tensor] | None = None
    tolerance: float = 1e-2  # what storing it in bfloat16 may have changed

    def check(self, name: str, lazy: LazyTensor) -> None:
        """Raises WeightsError when the file's tensor is another one than would be used."""
        import torch

        assert self.make is not None
        ours = self.make()
        if tuple(lazy.shape) != tuple(ours.shape):
            why = f"has the shape {describe(lazy.shape)}, not {describe(tuple(ours.shape))}"
        elif torch.allclose(lazy.read().float(), ours, rtol=0, atol=self.tolerance):
            return
        else:
            why = "holds other values than the formula that stands for it here"
        raise WeightsError(f"'{name}' {why}.")


def Rename(source: Written, target: Written, *steps: Step) -> Rule:
    """One public tensor is one of ours, after the steps; two prefixes rename all under them."""
    return Link((_part(source),), (_target(target),), steps=steps)


def Fuse(
    sources: Sequence[Written],
    target: Written,
    *steps: Step,
    dim: int = 0,
    sizes: Sequence[int] | None = None,
) -> Rule:
    """Several public tensors are one of ours, one after another along `dim`, then the steps.

    `sizes` are their lengths along `dim` where they differ (grouped-query attention): export has
    only the whole and must know where to cut.
    """
    parts = tuple(_part(source) for source in sources)
    rows = None if sizes is None else tuple(sizes)
    return Link(parts, (_target(target),), steps=steps, dim=dim, sizes=rows)


def Split(
    source: Written,
    targets: Sequence[Written],
    *steps: Step,
    dim: int = 0,
    sizes: Sequence[int] | None = None,
) -> Rule:
    """One public tensor is several of ours: the steps, then cut along `dim` (see `Fuse`)."""
    parts = tuple(_target(target) for target in targets)
    rows = None if sizes is None else tuple(sizes)
    return Link((_part(source),), parts, steps=steps, dim=dim, sizes=rows)


def Tie(sources: Sequence[str], targets: Sequence[str], *steps: Step, writes: int = 1) -> Rule:
    """All these names are one tensor. A file may have any of the public ones, and if it has several
    they must agree; export writes the first `writes` of them."""
    return Tied(
        tuple(_part(source) for source in sources),
        tuple(_target(target) for target in targets),
        steps=steps,
        writes=writes,
    )


def Drop(*sources: str) -> Rule:
    """Public tensors that are left out: recomputed here (masks, frequencies) or unused."""
    return Dropped(tuple(Part(Pattern(source)) for source in sources), (), optional=True)


def Compute(source: str, make: Callable[[], torch.Tensor]) -> Rule:
    """A public tensor that `make` gives (float32), and that has no place among ours."""
    return Computed((Part(Pattern(source)),), (), optional=True, make=make)


def Optional(rule: Rule) -> Rule:
    """The row, of something that a public file may lack (a head, a pooler)."""
    return replace(rule, optional=True)


def _target(written: Written) -> Part:
    part = _part(written)
    if isinstance(part, Fill):
        raise WeightsError(f"{part!r} stands for a public tensor: it belongs on the left of a row.")
    return part


def _public(part: Part | Fill, tensor: torch.Tensor) -> torch.Tensor | None:
    """What export writes for a public part: the tensor, or nothing for one that was filled in."""
    if isinstance(part, Part):
        return undone(tensor, part.steps)
    if not part.harmless and not bool((tensor == part.value).all()):
        raise Misfit(f"should be {part.value:g} where the public format has no tensor")
    return None
