"""Names with `*` for a layer number, and finding which of many patterns a name fits.

| written as          | stands for                                            |
|---------------------|-------------------------------------------------------|
| `norm.weight`       | that name                                             |
| `blocks.*.q.weight` | one name per layer; `*` is a number, digits only      |
| `blocks.*.mlp.`     | ends with a dot: every name that begins so            |
| (empty)             | every name                                            |
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from zoo.errors import WeightsError

__all__ = ["Hit", "Pattern", "PatternTable", "Spelling"]

T = TypeVar("T")

_NUMBER = re.compile(r"[0-9]+|\*")


@dataclass(frozen=True)
class Pattern:
    """One pattern. A match gives the numbers behind the stars, and what follows a prefix."""

    text: str

    def __post_init__(self) -> None:
        if re.search(r"\*[\d*]|\d\*", self.text):
            raise WeightsError(f"'{self.text}': a '*' must not touch a digit or another '*'.")

    @property
    def prefix(self) -> bool:
        """Whether it stands for all names that begin with it."""
        return not self.text or self.text.endswith(".")

    @property
    def stars(self) -> int:
        """How many numbers it leaves open."""
        return self.text.count("*")

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        body = "([0-9]+)".join(map(re.escape, self.text.split("*")))
        return re.compile(body + ("(.+)" if self.prefix else "()"), re.DOTALL)

    def match(self, name: str) -> tuple[tuple[str, ...], str] | None:
        """The numbers behind the stars and the rest behind a prefix, or None."""
        found = self._regex.fullmatch(name)
        return None if found is None else (found.groups()[:-1], found.groups()[-1])

    def fill(self, numbers: tuple[str, ...], tail: str) -> str:
        """The name with these numbers and this tail; the inverse of `match`."""
        parts = self.text.split("*")
        middle = "".join(number + part for number, part in zip(numbers, parts[1:], strict=True))
        return parts[0] + middle + tail


@dataclass(frozen=True)
class Hit(Generic[T]):
    """A name fitted a pattern: what was filed under it, the numbers and the tail."""

    value: T
    numbers: tuple[str, ...]
    tail: str


class PatternTable(Generic[T]):
    """Values filed under patterns. The most literal pattern that fits a name wins: a full name
    before a prefix, a longer prefix before a shorter one, fewer stars before more.

    Names are looked up by their skeleton (every number replaced by `*`), so a lookup costs the same
    whether the table has ten patterns or a thousand.
    """

    def __init__(self) -> None:
        self._full: dict[str, list[tuple[Pattern, T]]] = {}
        self._prefix: dict[str, list[tuple[Pattern, T]]] = {}

    def add(self, pattern: Pattern, value: T) -> None:
        """File `value`; the same pattern twice is an error of whoever wrote the table."""
        table = self._prefix if pattern.prefix else self._full
        row = table.setdefault(_skeleton(pattern.text), [])
        if any(other.text == pattern.text for other, _ in row):
            raise WeightsError(f"'{pattern.text}' stands twice on one side of a weight map.")
        row.append((pattern, value))

    def find(self, name: str) -> Hit[T] | None:
        """What is filed under the most literal pattern that fits `name`."""
        if hit := self._best(self._full.get(_skeleton(name), ()), name):
            return hit
        heads = [name[: dot.end()] for dot in re.finditer(r"\.", name)]
        for head in (*reversed(heads), ""):
            if hit := self._best(self._prefix.get(_skeleton(head), ()), name):
                return hit
        return None

    @staticmethod
    def _best(row: Sequence[tuple[Pattern, T]], name: str) -> Hit[T] | None:
        fits = [(pattern, value, found) for pattern, value in row if (found := pattern.match(name))]
        if not fits:
            return None
        fits.sort(key=lambda fit: fit[0].stars)
        if len(fits) > 1 and fits[0][0].stars == fits[1][0].stars:
            both = f"'{fits[0][0].text}' and '{fits[1][0].text}'"
            raise WeightsError(f"{both} in one weight map both claim '{name}'; make one narrower.")
        return Hit(fits[0][1], *fits[0][2])


@dataclass(frozen=True)
class Spelling:
    """Another spelling of names, replaced before the table is asked.

    `old` beginning with a dot is an ending (`.gamma`), with a dot at both ends a middle part
    (`.attention.self.`), otherwise a pattern as in the table. Only names in `scope` are touched.
    """

    old: str
    new: str
    scope: str = ""

    def apply(self, name: str) -> str:
        """`name` in the canonical spelling."""
        if not name.startswith(self.scope):
            return name
        return self.scope + self._apply(name[len(self.scope) :])

    def _apply(self, name: str) -> str:
        if self.old.startswith(".") and self.old.endswith("."):
            return name.replace(self.old, self.new)
        if self.old.startswith("."):
            return name.removesuffix(self.old) + self.new if name.endswith(self.old) else name
        found = Pattern(self.old).match(name)
        return Pattern(self.new).fill(*found) if found else name


def _skeleton(text: str) -> str:
    return _NUMBER.sub("*", text)
