"""Names to mappings: the library's reader of the YAML nodes under `conf/<group>/`.

It understands the small part of Hydra's defaults list that nodes use and gives the same values as
Hydra does (a test compares the two for every shipped node), but needs a millisecond and no global
state.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, PluginError, UnknownName
from zoo.registry.folders import (
    GROUPS,
    Group,
    check_group,
    conf_dir,
    conf_folders,
    forget,
    index,
    known_names,
    names,
)
from zoo.registry.grammar import Name, current_name, parse_name
from zoo.registry.overrides import apply_overrides, merge, nest
from zoo.registry.plugins import namespace_problem, plugin_of, plugins
from zoo.registry.schema import KINDS
from zoo.registry.suggest import hint, nearest
from zoo.registry.typed import resolve, resolve_mapping
from zoo.registry.yaml import read_yaml

__all__ = [
    "GROUPS",
    "Group",
    "conf_dir",
    "conf_folders",
    "find_node",
    "forget",
    "index",
    "kind_schema",
    "names",
    "read_mapping",
    "read_node",
    "read_tagged",
    "resolve",
]


# -- kinds -----------------------------------------------------------------------------------------


def kind_schema(group: str, name: str) -> type:
    """Returns the dataclass behind `kind: name` of a group; asks the plugin for `plugin/name`.

    Raises: UnknownName, PluginError.
    """
    check_group(group)
    if "/" in name:
        plugin_of(name, group).import_schemas()
    else:
        _import_schemas(GROUPS[group].room)
    if (group, name) not in KINDS:
        known = sorted(k for g, k in KINDS if g == group)
        kinds = f"Kinds: {', '.join(known) or 'none'}."
        raise UnknownName(f"Unknown kind {name!r} of {group}.{hint(name, known, kinds)}")
    return KINDS[group, name]


@cache
def _import_schemas(room: str) -> None:
    """Imports every `schema.py` of a room: torch-free modules, found by walking, so that no list
    must be kept."""
    package = importlib.util.find_spec(room)
    assert package is not None and package.submodule_search_locations, room
    root = Path(next(iter(package.submodule_search_locations)))
    for file in sorted(root.rglob("schema.py")):
        importlib.import_module(".".join((room, *file.relative_to(root).with_suffix("").parts)))


# -- nodes -----------------------------------------------------------------------------------------


def find_node(group: str, name: str) -> tuple[str, Path]:
    """Returns (name of today, file) of a node.

    Raises: UnknownName with the nearest name; PluginError when its plugin is broken or two places
    provide it.
    """
    name = current_name(group, name)
    found = index(group).get(name)
    if found is None:
        raise UnknownName(_unknown(group, name))
    if len(found) > 1:
        origins = " and ".join(origin for origin, _ in found)
        raise PluginError(f"Two places provide {group} {name!r}: {origins}; remove one.")
    return name, found[0][1]


def _unknown(group: str, name: str) -> str:
    namespace = name.partition("/")[0]
    ours = any(other.startswith(f"{namespace}/") for other in index(group))
    problem = "" if ours else namespace_problem(name)
    if problem and group == "model":
        problem += f" A hub repository is hf:{name}, a folder dir:{name}."
    if problem:
        return f"Unknown {group} {name!r}: {problem}"
    known = list(known_names(group, name))
    near, pattern = nearest(name, known), ""
    if "/" in name:  # a long namespace in common makes no two names alike
        inner = {other.removeprefix(f"{namespace}/"): other for other in known}
        near = inner.get(nearest(name.partition("/")[2], inner) or "")
        pattern = f" '{namespace}/*'"
    advice = f" Did you mean {near!r}?" if near else ""
    return f"Unknown {group} {name!r}.{advice} ({len(known)} names: zoo list {group}{pattern})"


def read_mapping(group: str, name: str) -> dict[str, Any]:
    """Returns the plain mapping of a node, its defaults list composed; no schema is involved yet.

    Raises: UnknownName, ConfigError, PluginError.
    """
    return _read(group, name, ())


def _read(group: str, name: str, chain: tuple[Path, ...]) -> dict[str, Any]:
    plugin = plugins().get(name.partition("/")[0]) if "/" in name else None
    if plugin is not None:
        plugin.check()
        if name not in index(group):
            node = plugin.made_up_node(group, name)
            if node is not None:
                return node
    name, file = find_node(group, name)
    if file in chain:
        raise ConfigError(f"{file}: the node extends itself by its defaults list.")
    content = read_yaml(file)
    if not isinstance(content, Mapping):
        raise ConfigError(f"{file}: a node is a mapping with a kind.")
    return _compose(group, file, dict(content), (*chain, file))


def _compose(
    group: str, file: Path, content: dict[str, Any], chain: tuple[Path, ...]
) -> dict[str, Any]:
    """Lays the entries of a defaults list and the file's own keys over each other, in order."""
    entries = content.pop("defaults", [])
    if not isinstance(entries, list):
        raise ConfigError(f"{file}: defaults is a list.")
    composed: dict[str, Any] = {}
    for entry in entries if "_self_" in entries else [*entries, "_self_"]:
        if entry == "_self_":
            composed = merge(composed, content)
            continue
        other, option, at = _parse_default(entry, group, file)
        inner = _read(other, option, chain)
        if not at:  # weights belong to one node: another size or head would not fit them
            inner = {key: value for key, value in inner.items() if key != "weights"}
        elif at == [other]:  # an experiment's model, with what the weights it starts from require
            inner = with_required(inner, content.get("weights"))
        composed = merge(composed, nest(at, inner))
    return composed


def _parse_default(entry: Any, group: str, file: Path) -> tuple[str, str, list[str]]:
    """Returns (group, name, place) of one entry of a defaults list; raises ConfigError for those
    that Hydra would read in another way."""
    if isinstance(entry, str) and "@" not in entry and not entry.startswith("/"):
        return group, entry, []
    if isinstance(entry, str) and entry.startswith("/") and entry.endswith("@_here_"):
        other, slash, option = entry[1:].removesuffix("@_here_").partition("/")
        if slash:
            return other, option, []
    if isinstance(entry, Mapping) and len(entry) == 1:
        ((key, option),) = entry.items()
        chosen = str(key).removeprefix("override /")
        if chosen != key and chosen in GROUPS and isinstance(option, str):
            return chosen, option, [chosen]  # of an experiment, in place of train.yaml's choice
        other, at, place = str(key).partition("@")
        if at and place and other.startswith("/") and isinstance(option, str):
            return other[1:], option, [] if place == "_here_" else place.split(".")
    raise ConfigError(
        f"{file}: defaults entry {entry!r} is none of: base, /group/base@_here_, "
        "{/group@key: base}, {override /group: name}, _self_."
    )


def read_tagged(group: str, name: str | Name) -> dict[str, Any]:
    """Returns the mapping of `name` or `name.tag`, with what those (or its first) weights require.

    Raises: UnknownName with the nearest tag, or for what is no node (`hf:…`, `dir:…`).
    """
    parsed = parse_name(name, group) if isinstance(name, str) else name
    if parsed.scheme:
        raise UnknownName(
            f"{parsed.scheme}:{parsed.name} is not a name in conf/; zoo.load reads it, "
            "zoo.info describes it."
        )
    mapping, tag = read_mapping(group, parsed.name), parsed.tag
    tags = mapping.get("weights") or {}
    if tag is not None and tag not in tags:
        if group != "model":
            raise UnknownName(_unknown(group, f"{parsed.name}.{tag}"))
        known = f"Tags: {', '.join(tags)}." if tags else "It has none; zoo.create gives new ones."
        raise UnknownName(f"{parsed.name!r} has no weights {tag!r}.{hint(tag, tags, known)}")
    return with_required(mapping, tag)


def with_required(mapping: Mapping[str, Any], tag: str | None = None) -> dict[str, Any]:
    """Returns a model's mapping with the keys that weights require: those of `tag`, or of the first
    when it is none of the tags."""
    tags = mapping.get("weights")
    if not isinstance(tags, Mapping):
        return dict(mapping)  # none, or what the schema will refuse
    weights = tags[tag] if tag in tags else next(iter(tags.values()), None)
    required = weights.get("set") if isinstance(weights, Mapping) else None
    return apply_overrides(mapping, required if isinstance(required, Mapping) else {})


def read_node(group: str, name: str, overrides: Iterable[str] | Mapping[str, Any] = ()) -> Any:
    """Returns the typed config of a named node with overrides laid over it."""
    return resolve_mapping(group, apply_overrides(read_tagged(group, name), overrides))
