"""zoo.list, zoo.info, zoo.config, zoo.plugins: what there is. No torch is imported for any
shipped name."""

from __future__ import annotations

import builtins
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from zoo.errors import UnknownName
from zoo.registry import (
    Name,
    Plugin,
    find_node,
    names,
    parse_name,
    read_tagged,
    resolve_mapping,
    to_mapping,
)
from zoo.registry.overrides import apply_overrides
from zoo.registry.plugins import plugins as installed_plugins

__all__ = ["Info", "config", "info", "list", "plugins"]


def list(group: str = "model", pattern: str | None = None) -> builtins.list[str]:
    """Returns the names of a group that match a shell pattern: `zoo.list("model", "vit*")`."""
    if "*" in group and pattern is None:  # zoo.list("vit*")
        group, pattern = "model", group
    return names(group, pattern)


def plugins() -> dict[str, Plugin]:
    """Returns the installed plugins by namespace; `.error` says what is wrong with a broken one."""
    return dict(installed_plugins())


def config(
    name: str, *overrides: str | Mapping[str, Any], group: str = "model", **keys: Any
) -> Any:
    """Returns the typed, fully resolved config of a name with overrides laid over it.

    Overrides are strings (`"backbone.depth=3"`), mappings of dotted keys, or keyword arguments
    of top-level keys.
    A tag (`"vit-base-16.clip"`) adds what its weights require.
    """
    return node_config(parse_name(name, group), overrides, keys, group)


def node_config(parsed: Name, overrides: Any, keys: Mapping[str, Any], group: str = "model") -> Any:
    """Returns the config of a node: file, then what the weights tag requires, then the caller's
    overrides."""
    mapping = read_tagged(group, parsed)
    for override in overrides:
        mapping = apply_overrides(mapping, [override] if isinstance(override, str) else override)
    return resolve_mapping(group, apply_overrides(mapping, keys))


@cache
def parameter_counts() -> dict[str, int]:
    """Returns name -> parameters of the shipped models, measured by tools/write_counts.py (a
    test keeps it true)."""
    file = Path(__file__).parent.parent / "registry" / "counts.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def known_parameters(name: str) -> int | None:
    """Returns how many parameters a name's unchanged model has, when that was counted before: by us
    for the shipped ones, by a plugin for its own."""
    plugin = installed_plugins().get(name.partition("/")[0]) if "/" in name else None
    return plugin.parameters(name) if plugin else parameter_counts().get(name)


@dataclass(frozen=True)
class Info:
    """What `zoo info NAME` prints."""

    name: str
    kind: str
    config: Any = field(repr=False)
    file: str | None
    builds: str
    inputs: str
    parameters: int
    bytes: int  # of the weights in fp32
    license: str | None
    paper: str | None
    weights: dict[str, str]  # tag -> where
    parts: dict[str, str]  # dotted key -> class that is built there

    def to_mapping(self) -> dict[str, Any]:
        """Returns plain data for --json."""
        plain = {k: v for k, v in vars(self).items() if k != "config"}
        return {**plain, "config": to_mapping(self.config)}

    def __str__(self) -> str:
        rows = {
            "kind": f"{self.kind} ({self.builds})",
            "parameters": f"{self.parameters:,}",
            "memory": f"{self.bytes / 2**20:,.1f} MiB in fp32, {self.bytes / 2**21:,.1f} in bf16",
            "inputs": self.inputs,
            "licence": self.license or "not stated",
            "paper": self.paper or "-",
            "weights": "; ".join(f"{k}: {v}" for k, v in self.weights.items())
            or "none (zoo.create)",
            "file": self.file or "-",
        }
        return "\n".join([self.name, *(f"  {key:<11} {value}" for key, value in rows.items())])


def info(name: str, *overrides: str | Mapping[str, Any], **keys: Any) -> Info:
    """Returns what a name is, without building it in memory.

    The parameter count of an unchanged shipped name is read from a file; anything else is
    counted on shapes (torch).
    """
    parsed = parse_name(name)
    if parsed.scheme:
        from zoo.api.stored import foreign_config

        typed, file = foreign_config(parsed)
    else:
        typed = node_config(parsed, overrides, keys)
        try:
            file = str(find_node("model", parsed.name)[1])
        except UnknownName:
            file = None
    changed = overrides or keys or parsed.tag or parsed.scheme
    count = None if changed else known_parameters(parsed.name)
    if count is None:
        from zoo.models.base import build_empty
        from zoo.models.bounds import bounded

        with bounded(None, file or name):
            count = sum(p.numel() for p in build_empty(typed).parameters())
    return Info(
        name=name,
        kind=typed.zoo_kind,
        config=typed,
        file=file,
        builds=typed.zoo_builds,
        inputs=_inputs(typed),
        parameters=count,
        bytes=4 * count,
        license=typed.card.license,
        paper=typed.card.paper,
        weights={tag: w.repo or f"shipped ({w.folder})" for tag, w in typed.weights.items()},
        parts=dict(_parts(typed)),
    )


def _inputs(typed: Any) -> str:
    describe = getattr(typed, "inputs", None)
    return describe() if describe else "see its card"


def _parts(typed: Any, path: str = "") -> Any:
    """Yields (dotted key, class) of every part, so that each string in a node can be followed to
    code."""
    import dataclasses

    for item in dataclasses.fields(typed):
        value = getattr(typed, item.name)
        several = value if isinstance(value, (tuple, builtins.list)) else [value]
        for index, one in enumerate(several):
            if dataclasses.is_dataclass(one):
                key = f"{path}{item.name}" + (f".{index}" if one is not value else "")
                if hasattr(one, "zoo_builds"):
                    yield key, one.zoo_builds
                yield from _parts(one, key + ".")
