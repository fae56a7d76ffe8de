"""The names: every node reads, nothing is named twice, every plugin loads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from zoo.doctor.report import Finding

__all__ = ["look"]


def look() -> Iterator[Finding]:
    """Yields each plugin, then the nodes per origin, then the broken ones."""
    from zoo.cli.commands.plugins import describe
    from zoo.errors import ZooError
    from zoo.registry.nodes import GROUPS, index, read_mapping, resolve
    from zoo.registry.plugins import plugins

    for plugin in plugins().values():
        row = describe(plugin)
        state = "broken" if row["error"] else "ok"
        owner = row["distribution"].split()[0]
        advice = f"mend it, or: pip uninstall {owner}" if row["error"] else ""
        text = row["error"] or f"{row['distribution']}: {row['adds']}"
        yield Finding("names", f"plugin {plugin.name}", state, text, advice)
    if not plugins():
        yield Finding("names", "plugins", "absent", "none installed")
    counts: Counter[str] = Counter()
    for group in GROUPS:
        for name, places in index(group).items():
            try:
                content = read_mapping(group, name)
                if "kind" in content:  # experiments are compositions; Hydra reads those
                    resolve(group, name)
                counts[places[0][0]] += 1
            except ZooError as error:
                yield Finding("names", f"{group} {name}", "broken", str(error))
    for origin, count in counts.items():
        yield Finding("names", f"of {origin}", "ok", f"{count} names read")
