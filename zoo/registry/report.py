"""A close look at one plugin: what it adds, and everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zoo.errors import ZooError
from zoo.registry.folders import GROUPS, index
from zoo.registry.nodes import read_mapping, read_node
from zoo.registry.plugins import Plugin
from zoo.registry.schema import KINDS

__all__ = ["Report", "report"]


@dataclass(frozen=True)
class Report:
    """What `zoo plugins` says of one plugin."""

    name: str  # its namespace
    distribution: str  # "zoo-acme 0.1"
    package: str
    location: str | None  # folder of the package
    problems: tuple[str, ...]  # everything found wrong; empty when it works
    names: dict[str, tuple[str, ...]]  # group -> names, files and made-up ones
    kinds: dict[str, tuple[str, ...]]  # group -> kinds that its schemas declare
    formats: tuple[str, ...]  # weight formats

    @property
    def state(self) -> str:
        """`ok` or `broken`."""
        return "broken" if self.problems else "ok"

    @property
    def adds(self) -> dict[str, int]:
        """Group -> how many names, and `format` -> how many weight formats; nothing of none."""
        counts = {group: len(found) for group, found in self.names.items()}
        return counts | ({"format": len(self.formats)} if self.formats else {})

    def to_mapping(self) -> dict[str, Any]:
        """Returns plain data for --json."""
        return {**vars(self), "state": self.state, "adds": self.adds}


def report(plugin: Plugin) -> Report:
    """Returns what a plugin is, after importing and checking all of it that is torch-free."""
    problems = [plugin.error] if plugin.error else []

    def attempt(function: Callable, *arguments: Any) -> Any:
        if plugin.error is None:  # what is broken as a whole is not asked any further
            try:
                return function(*arguments)
            except ZooError as error:
                problems.append(plugin.error or str(error))
            except Exception as error:
                problems.append(f"{type(error).__name__}: {error}")
        return None

    attempt(plugin.import_schemas)
    names: dict[str, set[str]] = {}
    for group in GROUPS:
        names[group] = {name for name in index(group) if name.startswith(f"{plugin.name}/")}
        for name in sorted(names[group]):
            tags = (attempt(read_mapping, group, name) or {}).get("weights")
            for text in [name, *(f"{name}.{tag}" for tag in tags or ())]:
                attempt(read_node, group, text)
        names[group].update(attempt(plugin.made_up_names, group) or ())
    module = attempt(plugin.formats)
    formats = [*getattr(module, "FORMATS", ()), *filter(None, [getattr(module, "FORMAT", None)])]
    kinds = sorted(key for key in KINDS if key[1].startswith(f"{plugin.name}/"))
    return Report(
        name=plugin.name,
        distribution=plugin.distribution,
        package=plugin.package,
        location=str(plugin.location) if plugin.location else None,
        problems=tuple(dict.fromkeys(problems)),
        names={group: tuple(sorted(found)) for group, found in names.items() if found},
        kinds={g: tuple(k for h, k in kinds if h == g) for g in GROUPS if g in dict(kinds)},
        formats=tuple(sorted(chosen.name for chosen in formats)),
    )
