"""The names: every node reads, nothing is named twice, every plugin loads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from zoo.doctor.report import Finding
from zoo.errors import ZooError
from zoo.registry.folders import GROUPS, index
from zoo.registry.nodes import read_node
from zoo.registry.plugins import describe
from zoo.registry.report import Report
from zoo.registry.yaml import read_yaml

__all__ = ["look"]


def look() -> Iterator[Finding]:
    """Yields each plugin, then the broken nodes, then how many read, per origin."""
    reports = describe()
    yield from map(_plugin, reports)
    if not reports:
        yield Finding("names", "plugins", "absent", "none installed")
    counts: Counter[str] = Counter()
    for group in GROUPS:
        for name, places in index(group).items():
            try:
                if group == "experiment":  # a composition, which Hydra reads
                    read_yaml(places[0][1])
                else:
                    read_node(group, name)
                counts[places[0][0]] += 1
            except ZooError as error:
                yield Finding("names", f"{group} {name}", "broken", str(error))
    for origin, count in counts.items():
        yield Finding("names", f"of {origin}", "ok", f"{count} names read")


def _plugin(found: Report) -> Finding:
    adds = ", ".join(f"{count} {group}" for group, count in found.adds.items())
    name, text = f"plugin {found.name}", f"{found.distribution}: {adds or 'no names yet'}"
    if not found.problems:
        return Finding("names", name, "ok", text)
    advice = f"mend it, or: pip uninstall {found.distribution.split()[0]}"
    return Finding("names", name, "broken", "; ".join(found.problems), advice)
