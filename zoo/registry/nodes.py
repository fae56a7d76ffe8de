"""Names are files: finding, listing and reading the YAML nodes under `conf/<group>/`.

This is the library's reader. It understands the small part of Hydra's defaults list that nodes use and gives the
same values as Hydra does (a test compares the two for every shipped node), but needs 5 ms and no global state.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, PluginError, UnknownName
from zoo.registry.overrides import apply_overrides
from zoo.registry.schema import KINDS, merge, resolve_mapping
from zoo.registry.suggest import hint
from zoo.registry.yaml import read_yaml

__all__ = [
    "GROUPS",
    "Group",
    "conf_dir",
    "find_node",
    "kind_schema",
    "names",
    "read_node",
    "resolve",
]


@dataclass(frozen=True)
class Group:
    """A folder of names: the room whose `schema.py` files hold its kinds, and what it is for."""

    room: str
    doc: str


GROUPS: dict[str, Group] = {
    "model": Group("zoo.models", "what zoo.load and zoo.create build"),
    "tokenizer": Group("zoo.tokenizers", "raw input to tokens and back"),
    "backbone": Group("zoo.backbones", "stacks of transformer blocks"),
    "norm": Group("zoo.nn", "normalisations"),
    "position": Group("zoo.nn", "how a stack knows where a token stands"),
    "attention": Group("zoo.nn", "mixers of information between tokens"),
    "kernel": Group("zoo.nn", "how scores become outputs once q, k and v are projected"),
    "feedforward": Group("zoo.nn", "what happens to each token alone"),
    "data": Group("zoo.data", "data sets by name"),
    "objective": Group("zoo.training", "losses and what they feed the model"),
    "optim": Group("zoo.training", "optimisers"),
    "schedule": Group("zoo.training", "learning rates over time"),
    "trainer": Group("zoo.training", "how long, on what, how often saved"),
    "experiment": Group("zoo.training", "whole experiments for zoo train experiment=…"),
}


# -- folders ---------------------------------------------------------------------------------------------------------


@cache
def conf_dir() -> Path:
    """Returns the folder of the shipped names, in an installed wheel or in a checkout."""
    package = Path(__file__).parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "model").is_dir():
            return folder
    raise ConfigError(
        "The folder conf/ is missing from this installation of zoo; install it again."
    )


def conf_folders() -> list[tuple[str, Path]]:
    """Returns (origin, folder) of every place that holds names: ours, `ZOO_CONF_PATH`, then the plugins'."""
    from zoo.registry.plugins import plugins

    extra = [Path(p) for p in os.environ.get("ZOO_CONF_PATH", "").split(os.pathsep) if p]
    folders = [("zoo", conf_dir())] + [(str(folder), folder) for folder in extra]
    return folders + [
        (plugin.name, plugin.conf) for plugin in plugins().values() if plugin.conf is not None
    ]


def _walk(folder: Path, prefix: str = "") -> Iterable[str]:
    if folder.is_dir():
        for entry in os.scandir(folder):
            if entry.is_dir() and not entry.name.startswith(("_", ".")):
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
            elif entry.name.endswith(".yaml") and not entry.name.startswith(("_", ".")):
                yield prefix + entry.name[: -len(".yaml")]


@cache
def _index(group: str, environment: str) -> dict[str, list[tuple[str, Path]]]:
    """Maps each name of a group to (origin, file); a name found twice keeps both, and reading it is an error."""
    found: dict[str, list[tuple[str, Path]]] = {}
    for origin, folder in conf_folders():
        for name in _walk(folder / group):
            found.setdefault(name, []).append((origin, folder / group / f"{name}.yaml"))
    return found


def index(group: str) -> dict[str, list[tuple[str, Path]]]:
    """Returns name -> [(origin, file)] of a group; reads folders only, no file and no torch."""
    if group not in GROUPS:
        raise UnknownName(
            f"Unknown group {group!r}.{hint(group, GROUPS, 'Groups: ' + ', '.join(GROUPS) + '.')}"
        )
    return _index(
        group, os.environ.get("ZOO_CONF_PATH", "") + "|" + os.environ.get("ZOO_PLUGINS", "")
    )


def forget() -> None:
    """Empties the caches, for a process in which a plugin or a folder of names came or went."""
    from zoo.registry.plugins import plugins

    _index.cache_clear()
    read_aliases.cache_clear()
    plugins.cache_clear()


def names(group: str = "model", pattern: str | None = None) -> list[str]:
    """Returns the sorted names of a group that match a shell pattern (`vit*`); imports no torch.

    Plugins that name things they do not hold as files (`timm/resnet50`) are asked only for patterns that reach them.
    """
    from zoo.registry.plugins import plugins

    found = set(index(group))
    for plugin in plugins().values():
        if pattern is not None and fnmatch.fnmatch(plugin.name + "/", pattern.split("/")[0] + "/"):
            found.update(plugin.dynamic_names(group))
    return sorted(name for name in found if pattern is None or fnmatch.fnmatch(name, pattern))


# -- kinds -----------------------------------------------------------------------------------------------------------


@cache
def _import_schemas(room: str) -> None:
    """Imports every `schema.py` of a room: torch-free modules, found by walking, so that no list must be kept."""
    package = importlib.util.find_spec(room)
    assert package is not None and package.submodule_search_locations, room
    root = Path(next(iter(package.submodule_search_locations)))
    for file in sorted(root.rglob("schema.py")):
        importlib.import_module(".".join((room, *file.relative_to(root).with_suffix("").parts)))


def kind_schema(group: str, name: str) -> type:
    """Returns the dataclass behind `kind: name` of a group; asks the plugin for `plugin/name`."""
    if "/" in name:
        from zoo.registry.plugins import plugin_of

        plugin_of(name, group).import_schemas()
    else:
        _import_schemas(GROUPS[group].room)
    if (group, name) not in KINDS:
        known = sorted(k for g, k in KINDS if g == group)
        raise UnknownName(
            f"Unknown kind {name!r} of {group}.{hint(name, known, 'Kinds: ' + ', '.join(known) + '.')}"
        )
    return KINDS[group, name]


# -- nodes -----------------------------------------------------------------------------------------------------------


@cache
def read_aliases() -> dict[str, dict[str, str]]:
    """Returns group -> {old name: new name}; old names never die."""
    file = conf_dir() / "aliases.yaml"
    return (read_yaml(file) or {}) if file.is_file() else {}


def find_node(group: str, name: str) -> tuple[str, Path]:
    """Returns (name, file) of a node; raises UnknownName with the nearest name, PluginError when two provide it."""
    import warnings

    found = index(group)
    new = read_aliases().get(group, {}).get(name)
    if new is not None and name not in found:
        warnings.warn(f"{group} {name!r} is now called {new!r}.", DeprecationWarning, stacklevel=3)
        name = new
    if name not in found:
        from zoo.registry.plugins import broken_plugin_hint

        raise UnknownName(
            f"Unknown {group} {name!r}.{hint(name, found)} ({len(found)} names: zoo list {group})"
            + broken_plugin_hint(name)
        )
    if len(found[name]) > 1:
        raise PluginError(
            f"Two places provide {group} {name!r}: {' and '.join(origin for origin, _ in found[name])}; remove one."
        )
    return name, found[name][0][1]


def read_mapping(group: str, name: str) -> dict[str, Any]:
    """Returns the plain mapping of a node, its defaults list composed; no schema is involved yet."""
    if "/" in name and name not in index(group):
        from zoo.registry.plugins import plugins

        plugin = plugins().get(name.split("/")[0])
        node = plugin.dynamic_node(group, name) if plugin else None
        if node is not None:
            return node
    name, file = find_node(group, name)
    content = read_yaml(file)
    if not isinstance(content, Mapping):
        raise ConfigError(f"{file}: a node is a mapping with a kind.")
    return _compose(group, file, dict(content))


def _compose(group: str, file: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Lays the entries of a defaults list and the file's own keys over each other, in order."""
    entries = content.pop("defaults", None)
    if entries is None:
        return content
    composed: dict[str, Any] = {}
    own_done = False
    for entry in entries:
        if entry == "_self_":
            composed, own_done = merge(composed, content), True
            continue
        (key, option), (target, at) = _parse_default(entry, file), ("", None)
        target, _, at = key.partition("@")
        other = target.lstrip("/") or group
        inner = read_mapping(other, option)
        composed = merge(composed, inner if at in ("", "_here_") else {at: inner})
    return composed if own_done else merge(composed, content)


def _parse_default(entry: Any, file: Path) -> tuple[str, str]:
    """Reads one defaults entry: `base`, `/group/base@_here_` or `{/group@key: base}`; anything else is refused."""
    if isinstance(entry, str):
        where, _, at = entry.partition("@")
        if where.startswith("/"):
            group, _, option = where[1:].partition("/")
            return f"/{group}@{at or '_here_'}", option
        return f"@{at or '_here_'}", where
    if isinstance(entry, Mapping) and len(entry) == 1:
        key, option = next(iter(entry.items()))
        if isinstance(key, str) and isinstance(option, str) and key.startswith("/") and "@" in key:
            return key, option
    raise ConfigError(
        f"{file}: defaults entry {entry!r} is none of: base, /group/base@_here_, {{/group@key: base}}."
    )


def resolve(group: str, value: str | Mapping, path: str = "") -> Any:
    """Returns the typed config of a name, of `{name: …, key: …}` or of `{kind: …, key: …}`."""
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{path or group}: expected the name of a {group} or a mapping, got {value!r}."
        )
    if "name" in value:
        rest = {key: item for key, item in value.items() if key != "name"}
        try:
            node = read_mapping(group, value["name"])
        except UnknownName as error:
            raise UnknownName(f"{path}: {error}" if path else str(error)) from None
        value = merge(node, rest)
    return resolve_mapping(group, value, path)


def read_node(group: str, name: str, overrides: Iterable[str] | Mapping[str, Any] = ()) -> Any:
    """Returns the typed config of a named node with overrides laid over it."""
    return resolve_mapping(group, apply_overrides(read_mapping(group, name), overrides))
