"""Declared, reversible maps between a public checkpoint's tensors and ours.

A map is a table, theirs on the left, ours on the right; one row covers all layers:

    WeightMap(
        [
            Rename("wte.weight",                  "embedding.weight"),
            Rename("h.*.ln_1.",                   "layers.*.attention_norm."),
            Fuse(["h.*.q.", "h.*.k.", "h.*.v."],  "layers.*.attention.qkv."),
            Rename("h.*.mlp.c_fc.weight",         "layers.*.feedforward.up.weight", Transpose()),
            Drop("h.*.attn.bias", "h.*.attn.masked_bias"),
        ],
        prefixes=["transformer."],
        spellings={".gamma": ".weight", ".beta": ".bias"},
    )

The left side is the layout that export writes. Names in a file may carry or lack any of `prefixes`,
and `spellings` lists other ways they are spelt. Declaring and listing needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from zoo.errors import WeightsError
from zoo.weights.lazy import LazyTensor, as_lazy, describe
from zoo.weights.patterns import Hit, PatternTable, Spelling
from zoo.weights.rules import (
    Compute,
    Computed,
    Drop,
    Dropped,
    Fill,
    Fuse,
    Optional,
    Part,
    Rename,
    Rule,
    Split,
    Tie,
)
from zoo.weights.steps import (
    Add,
    FromHeadGroups,
    HalfSplit,
    Inverse,
    Leading,
    Misfit,
    OnFirst,
    Reorder,
    Reshape,
    Scale,
    Squeeze,
    Step,
    Transpose,
)

if TYPE_CHECKING:
    import torch

__all__ = [
    "Add",
    "Compute",
    "Drop",
    "Fill",
    "FromHeadGroups",
    "Fuse",
    "HalfSplit",
    "Inverse",
    "Leading",
    "MappedWeights",
    "OnFirst",
    "Optional",
    "Rename",
    "Reorder",
    "Reshape",
    "Rule",
    "Scale",
    "Split",
    "Squeeze",
    "Step",
    "Tie",
    "Transpose",
    "WeightMap",
]

SHOWN = 10  # names listed of each kind of problem

Slot = tuple[int, int]  # row, position in the row
Group = tuple[int, tuple[str, ...], str]  # row, the numbers behind its stars, tail of its prefix


class MappedWeights(Mapping[str, LazyTensor]):
    """A public checkpoint under our names; tensors are read and computed one by one when asked for.

    Attributes:
        unmatched: public names that no row knows.
        ignored: public names that were dropped, by the pattern that dropped them.
        problems: our names that the file should give but cannot, and why.
        absent: public names (patterns) of required rows of which the file has nothing.
    """

    def __init__(self, weight_map: WeightMap) -> None:
        self._map = weight_map
        self._tensors: dict[str, LazyTensor] = {}
        self.unmatched: list[str] = []
        self.ignored: dict[str, list[str]] = {}
        self.problems: dict[str, str] = {}
        self.absent: list[str] = []

    def __getitem__(self, name: str) -> LazyTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def origin(self, name: str) -> list[str]:
        """The public names that our `name` comes from; empty if the map does not know it."""
        return self._map.origin(name)

    def check(self) -> None:
        """Raise WeightsError if anything is unmatched, absent or misshapen, all of it in one."""
        _refuse(
            "The file does not fit its format",
            {
                "unknown": self.unmatched,
                "absent": self.absent,
                "unusable": [f"{name} ({why})" for name, why in self.problems.items()],
            },
        )


class WeightMap:
    """The table of one format. See the module's text for an example.

    Args:
        rules: the rows.
        prefixes: beginnings that a public name may carry or lack.
        spellings: other spellings of public names: an ending (`.gamma`), a middle (`.self.`), or a
            pattern (`vision_tower.vision_model.`), each with what it means on the left side.

    Raises:
        WeightsError: a pattern stands twice on one side, or the stars of a row differ.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        *,
        prefixes: Iterable[str] = (),
        spellings: Mapping[str, str] | Iterable[Spelling] = (),
    ) -> None:
        self.rules = tuple(rules)
        self._prefixes = tuple(("", prefix) for prefix in prefixes)  # scope, prefix
        if isinstance(spellings, Mapping):
            spellings = [Spelling(old, new) for old, new in spellings.items()]
        self._spellings = tuple(spellings)
        self._sources: PatternTable[Slot] = PatternTable()
        self._targets: PatternTable[Slot] = PatternTable()
        for row, rule in enumerate(self.rules):
            for table, parts in ((self._sources, rule.sources), (self._targets, rule.targets)):
                for position, part in enumerate(parts):
                    if isinstance(part, Part):
                        table.add(part.pattern, (row, position))

    def load(self, source: Mapping[str, LazyTensor | torch.Tensor]) -> MappedWeights:
        """`source` under our names. Reads nothing; what does not fit is listed in the result.

        Raises:
            WeightsError: two public names mean the same tensor, two rows give the same of ours, or
                a tensor that is computed here is another one in the file.
        """
        mapped = MappedWeights(self)
        groups: dict[Group, dict[int, str]] = {
            (row, (), ""): {} for row, rule in enumerate(self.rules) if rule.filled
        }
        for name in source:
            hit = self._find(name)
            if hit is None:
                mapped.unmatched.append(name)
                continue
            row, position = hit.value
            rule = self.rules[row]
            if isinstance(rule, Computed):
                rule.check(name, as_lazy(source[name]))
            if isinstance(rule, Dropped):
                mapped.ignored.setdefault(rule.name(position), []).append(name)
                continue
            found = groups.setdefault((row, hit.numbers, hit.tail), {})
            if position in found:
                raise WeightsError(
                    f"'{found[position]}' and '{name}' are two spellings of one tensor; the file "
                    "must have one of them."
                )
            found[position] = name
        dtype = next((as_lazy(value).dtype for value in source.values()), "float32")
        for group, found in groups.items():
            self._make(mapped, group, {k: (n, as_lazy(source[n])) for k, n in found.items()}, dtype)
        mapped.absent = self._without([group[0] for group in groups], "sources")
        return mapped

    def _make(
        self,
        mapped: MappedWeights,
        group: Group,
        found: dict[int, tuple[str, LazyTensor]],
        dtype: str,
    ) -> None:
        """Put what one row makes of one set of public tensors into `mapped`."""
        row, numbers, tail = group
        rule = self.rules[row]
        targets = [part.pattern.fill(numbers, tail) for part in rule.targets]
        for target in targets:
            if target in mapped._tensors or target in mapped.problems:
                raise WeightsError(f"Two rows of the weight map give '{target}'; drop one of them.")
        lacking = rule.needed_sources() - found.keys()
        if lacking:
            names = ", ".join(f"'{rule.name(k, numbers, tail)}'" for k in sorted(lacking))
            mapped.problems.update(dict.fromkeys(targets, f"the file has no {names}"))
            return
        try:
            made = rule.forward({k: lazy for k, (_, lazy) in found.items()}, dtype)
        except Misfit as misfit:
            given = ", ".join(f"'{n}' {describe(lazy.shape)}" for n, lazy in found.values())
            mapped.problems.update(dict.fromkeys(targets, f"{given} {misfit}"))
            return
        mapped._tensors.update(zip(targets, made, strict=True))

    def export(self, state: Mapping[str, LazyTensor | torch.Tensor]) -> dict[str, torch.Tensor]:
        """Our tensors in the public layout: the inverse of `load`, bit for bit (but see `Add`).

        Raises:
            WeightsError: a tensor without a place in the format, one that the format requires and
                `state` lacks, or one that does not fit its row; all of them together.
        """
        unknown: list[str] = []
        unusable: list[str] = []
        groups: dict[Group, dict[int, str]] = {}
        for name in state:
            hit = self._targets.find(name)
            if hit is None:
                unknown.append(name)
                continue
            row, position = hit.value
            groups.setdefault((row, hit.numbers, hit.tail), {})[position] = name
        public: dict[str, torch.Tensor] = {}
        for (row, numbers, tail), given in groups.items():
            rule = self.rules[row]
            lacking = rule.needed_targets() - given.keys()
            label = " + ".join(given.values())
            if lacking:
                parts = [rule.targets[k].pattern.fill(numbers, tail) for k in sorted(lacking)]
                unusable.append(f"{label} (without {', '.join(parts)})")
                continue
            try:
                tensors = rule.backward({k: as_lazy(state[n]) for k, n in given.items()})
            except Misfit as misfit:
                shape = describe(as_lazy(state[next(iter(given.values()))]).shape)
                unusable.append(f"{label} {shape} ({misfit})")
                continue
            for position, tensor in enumerate(tensors):
                if tensor is None:
                    continue
                name = rule.name(position, numbers, tail)
                if name in public:
                    raise WeightsError(f"Two tensors would become '{name}'; the map needs a fix.")
                public[name] = tensor.contiguous()
        first = next(iter(public.values()), None)
        for rule in self.rules:
            if isinstance(rule, Computed) and rule.make is not None and first is not None:
                public[rule.name(0)] = rule.make().to(first.dtype)
        absent = self._without([group[0] for group in groups], "targets")
        _refuse(
            "The weights cannot be written in this format",
            {"no place for": unknown, "lacking": absent, "unusable": unusable},
        )
        return public

    def origin(self, name: str) -> list[str]:
        """The public names that our `name` comes from; empty if the map does not know it."""
        hit = self._targets.find(name)
        if hit is None:
            return []
        rule = self.rules[hit.value[0]]
        parts = [k for k, part in enumerate(rule.sources) if isinstance(part, Part)]
        return [rule.name(k, hit.numbers, hit.tail) for k in parts]

    def under(self, source: str, target: str) -> WeightMap:
        """The same table as a part of a larger one: every public name begins with `source` and
        every one of ours with `target` (both end with a dot, or are empty)."""
        moved = WeightMap(
            [rule.under(source, target) for rule in self.rules],
            spellings=[Spelling(s.old, s.new, source + s.scope) for s in self._spellings],
        )
        moved._prefixes = tuple((source + scope, prefix) for scope, prefix in self._prefixes)
        return moved

    def __add__(self, other: WeightMap) -> WeightMap:
        """Both tables as one."""
        both = WeightMap(
            (*self.rules, *other.rules), spellings=(*self._spellings, *other._spellings)
        )
        both._prefixes = (*self._prefixes, *other._prefixes)
        return both

    def __str__(self) -> str:
        """The table, a line per name: theirs, ours."""
        rows: list[tuple[str, str]] = []
        for rule in self.rules:
            theirs = [rule.name(position) for position in range(len(rule.sources))]
            ours = [part.pattern.text for part in rule.targets] or ["(dropped)"]
            size = max(len(theirs), len(ours))
            rows += zip(theirs + [""] * (size - len(theirs)), ours + [""] * (size - len(ours)))
        width = max((len(left) for left, _ in rows), default=0)
        return "\n".join(f"{left:{width}}  {right}".rstrip() for left, right in rows)

    def _find(self, name: str) -> Hit[Slot] | None:
        for spelling in self._spellings:
            name = spelling.apply(name)
        if hit := self._sources.find(name):
            return hit
        for scope, prefix in self._prefixes:
            if not name.startswith(scope):
                continue
            rest = name[len(scope) :]
            variants = [scope + prefix + rest]
            if rest.startswith(prefix):
                variants.append(scope + rest[len(prefix) :])
            for variant in variants:
                if hit := self._sources.find(variant):
                    return hit
        return None

    def _without(self, used: Iterable[int], side: str) -> list[str]:
        """Patterns of the required rows that found nothing."""
        rows = set(used)
        unused = [r for row, r in enumerate(self.rules) if row not in rows and not r.optional]
        return [
            " + ".join(part.pattern.text for part in getattr(rule, side) if isinstance(part, Part))
            for rule in unused
        ]


def _refuse(opening: str, problems: Mapping[str, list[str]]) -> None:
    """One error for everything that is wrong, or none."""
    lines = []
    for kind, names in problems.items():
        if names:
            more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            lines.append(f"{kind} {', '.join(names[:SHOWN])}{more}")
    if lines:
        raise WeightsError(f"{opening}: {'; '.join(lines)}.")
