"""Plugins: distributions that add names, parts, models and data by one entry point, and cost nothing until named.

    [project.entry-points."zoo.plugins"]
    acme = "zoo_acme"

The value is a package that holds `conf/<group>/acme/*.yaml`, torch-free `schema.py` files with kinds named
`acme/…`, and, where its names are not files, a `plugin.py` with `names(group)` and `node(group, name)`.
Weight formats live in `<package>/formats.py`. Finding a plugin reads metadata and imports none of its code.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from zoo.errors import PluginError, UnknownName
from zoo.registry.suggest import hint

__all__ = ["Plugin", "plugins"]


@dataclass
class Plugin:
    """One installed plugin: its namespace, where it comes from, and the error that makes it unusable, if any."""

    name: str  # the namespace of its names: `acme` in `acme/tiny`
    package: str  # what is imported
    distribution: str  # "zoo-acme 0.1", for messages
    conf: Path | None = None
    error: str | None = None
    _dynamic: ModuleType | bool | None = field(default=False, repr=False)

    def import_schemas(self) -> None:
        """Imports the plugin's `schema.py` files; raises PluginError naming the distribution when one fails."""
        self.check()
        spec = importlib.util.find_spec(self.package)
        assert spec is not None and spec.submodule_search_locations
        root = Path(next(iter(spec.submodule_search_locations)))
        for file in sorted(root.rglob("schema.py")):
            self._import(".".join((self.package, *file.relative_to(root).with_suffix("").parts)))

    def check(self) -> None:
        """Raises PluginError when the plugin is broken."""
        if self.error:
            raise PluginError(f"Plugin {self.name!r} ({self.distribution}) is broken: {self.error}")

    def dynamic_names(self, group: str) -> list[str]:
        """Returns the names that the plugin answers to without holding files for them."""
        module = self._plugin_module()
        return list(module.names(group)) if module else []

    def dynamic_node(self, group: str, name: str) -> dict[str, Any] | None:
        """Returns the node mapping of such a name, or None when the plugin does not know it."""
        self.check()
        module = self._plugin_module()
        return module.node(group, name) if module else None

    def _plugin_module(self) -> ModuleType | None:
        if self._dynamic is False:
            has = (
                self.error is None
                and importlib.util.find_spec(f"{self.package}.plugin") is not None
            )
            self._dynamic = self._import(f"{self.package}.plugin") if has else None
        return self._dynamic  # type: ignore[return-value]

    def formats(self) -> ModuleType | None:
        """Returns the module that declares the plugin's weight formats, if it has one."""
        self.check()
        name = f"{self.package}.formats"
        return self._import(name) if importlib.util.find_spec(name) is not None else None

    def _import(self, module: str) -> ModuleType:
        try:
            return importlib.import_module(module)
        except Exception as error:
            raise PluginError(
                f"Plugin {self.name!r} ({self.distribution}) is broken: importing {module} failed with "
                f"{type(error).__name__}: {error}"
            ) from error


@cache
def plugins() -> dict[str, Plugin]:
    """Returns namespace -> plugin for every installed one; `ZOO_PLUGINS=off` or `=a,b` restricts them."""
    from importlib.metadata import entry_points

    wanted = os.environ.get("ZOO_PLUGINS", "")
    found: dict[str, Plugin] = {}
    if wanted == "off":
        return found
    for entry in sorted(entry_points(group="zoo.plugins"), key=lambda e: (e.name, e.value)):
        if wanted and entry.name not in wanted.split(","):
            continue
        distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
        plugin = Plugin(entry.name, entry.value, distribution)
        twin = found.get(entry.name)
        if twin is not None and (twin.package, twin.distribution) == (
            plugin.package,
            plugin.distribution,
        ):
            continue  # one distribution seen through two metadata folders (an editable install beside its source)
        if twin is not None:
            twin.error = f"two plugins call themselves {entry.name!r}: {twin.distribution}, {distribution}; remove one."
            continue
        found[entry.name] = plugin
        _locate(plugin)
    return found


def _locate(plugin: Plugin) -> None:
    try:
        spec = importlib.util.find_spec(plugin.package)
    except (
        Exception
    ) as error:  # a parent package that fails to import must not take every other name with it
        plugin.error = f"{type(error).__name__}: {error}"
        return
    if spec is None or not spec.submodule_search_locations:
        plugin.error = f"package {plugin.package!r} is not importable."
        return
    conf = Path(next(iter(spec.submodule_search_locations))) / "conf"
    if not conf.is_dir():
        return
    for group in conf.iterdir():
        if group.is_dir() and not group.name.startswith("_"):
            outside = [
                p.name
                for p in group.iterdir()
                if p.name != plugin.name and not p.name.startswith(("_", "."))
            ]
            if outside:
                plugin.error = f"its names must lie under conf/{group.name}/{plugin.name}/, found {outside[0]!r}."
                return
    plugin.conf = conf


def plugin_of(name: str, group: str) -> Plugin:
    """Returns the plugin that owns `plugin/name`; raises UnknownName that names what is installed."""
    namespace = name.split("/")[0]
    if namespace not in plugins():
        raise UnknownName(
            f"{group} {name!r} belongs to a plugin {namespace!r} that is not installed."
            + hint(namespace, plugins(), "See zoo plugins.")
        )
    return plugins()[namespace]


def broken_plugin_hint(name: str) -> str:
    """Returns what to add to an unknown-name error when the name belongs to a broken or missing plugin."""
    if "/" not in name:
        return ""
    plugin = plugins().get(name.split("/")[0])
    if plugin is None:
        return f"; no plugin {name.split('/')[0]!r} is installed: a hub repository is hf:{name}, a folder dir:{name}"
    return (
        f"; plugin {plugin.name!r} ({plugin.distribution}) is broken: {plugin.error}"
        if plugin.error
        else ""
    )
