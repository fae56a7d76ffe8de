"""Plugins: distributions that add names, parts, models and data by one entry point, and cost
nothing until named.

    [project.entry-points."zoo.plugins"]
    acme = "zoo_acme"

The value is a package that holds any of

* `conf/<group>/acme/*.yaml`: names; `acme/tiny` is the file `conf/model/acme/tiny.yaml`;
* `**/schema.py`: torch-free schemas, whose kinds are called `acme/…`;
* `plugin.py`: torch-free, with `names(group) -> iterable of names` and
  `node(group, name) -> mapping or None` for names that are not files, and
  `parameters(name) -> count or None` for models that need not be built to be counted;
* `formats.py`: torch-free, with `FORMAT` or `FORMATS`, for weights in a layout of its own.

Finding a plugin reads metadata and folder names and imports none of its code. What is wrong with
one is an error where its names are asked for, and in `describe()`; other names are not affected.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zoo.errors import PluginError, UnknownName, ZooError
from zoo.registry.schema import KINDS
from zoo.registry.suggest import hint

if TYPE_CHECKING:
    from zoo.registry.report import Report

__all__ = ["Plugin", "check_namespace", "describe", "namespace_problem", "plugin_of", "plugins"]

NAMESPACE = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
RESERVED = ("dir", "hf", "zoo")  # as a namespace they would read like something else


@dataclass
class Plugin:
    """One installed plugin: its namespace, where it comes from, and what makes it unusable."""

    name: str  # the namespace of its names: `acme` in `acme/tiny`
    package: str  # what is imported
    distribution: str  # "zoo-acme 0.1"
    location: Path | None = None  # folder of the package
    error: str | None = None  # why it is broken, as far as that is known by now

    @property
    def conf(self) -> Path | None:
        """Folder of its names, when there is one and the plugin is not broken."""
        folder = self.location / "conf" if self.location and not self.error else None
        return folder if folder is not None and folder.is_dir() else None

    def check(self) -> None:
        """Raises PluginError when the plugin is broken."""
        if self.error:
            raise self.fail(self.error)

    def fail(self, reason: str) -> PluginError:
        """Returns the PluginError to raise, and remembers why the plugin is broken."""
        self.error = " ".join(reason.split())
        return PluginError(f"Plugin {self.name!r} ({self.distribution}) is broken: {self.error}")

    def import_schemas(self) -> None:
        """Imports its `schema.py` files, which declare its kinds; raises PluginError."""
        self.check()
        assert self.location is not None
        for file in sorted(self.location.rglob("schema.py")):
            parts = file.relative_to(self.location).with_suffix("").parts
            self._import(".".join((self.package, *parts)))
        mine = [k for k, s in KINDS.items() if f"{s.__module__}.".startswith(f"{self.package}.")]
        outside = [key for key in mine if not key[1].startswith(f"{self.name}/")]
        for key in outside:
            del KINDS[key]
        if outside:
            group, kind = outside[0]
            raise self.fail(f"its kinds must be called {self.name}/…, found {group} {kind!r}.")

    def made_up_names(self, group: str) -> list[str]:
        """Returns the names that it answers to without holding files for them; raises
        PluginError."""
        found = list(self._ask("names", group) or ())
        outside = [name for name in found if not str(name).startswith(f"{self.name}/")]
        if outside:
            raise self.fail(f"its names must begin with {self.name}/, found {outside[0]!r}.")
        return found

    def made_up_node(self, group: str, name: str) -> dict[str, Any] | None:
        """Returns the mapping of such a name, or None when the plugin does not know it; raises
        PluginError."""
        node = self._ask("node", group, name)
        if node is not None and not isinstance(node, Mapping):
            raise self.fail(f"its node {name!r} is no mapping but {type(node).__name__}.")
        return None if node is None else dict(node)

    def parameters(self, name: str) -> int | None:
        """Returns how many parameters the unchanged model of a name has, if the plugin knows
        without building it; raises PluginError."""
        return self._ask("parameters", name)

    def formats(self) -> ModuleType | None:
        """Returns the module that declares its weight formats, if it has one; raises
        PluginError."""
        return self._module("formats")

    def _ask(self, function: str, *arguments: str) -> Any:
        module = self._module("plugin")
        if module is None:
            return None
        asked = getattr(module, function, None)
        if asked is None:
            return None
        try:
            return asked(*arguments)
        except ZooError:
            raise  # it speaks to the user
        except Exception as error:
            called = f"{module.__name__}.{function}{arguments!r}"
            reason = f"{called} failed with {type(error).__name__}: {error}"
            raise self.fail(reason) from error

    def _module(self, name: str) -> ModuleType | None:
        self.check()
        assert self.location is not None
        present = (self.location / f"{name}.py").is_file() or (self.location / name).is_dir()
        return self._import(f"{self.package}.{name}") if present else None

    def _import(self, module: str) -> ModuleType:
        if module in sys.modules:
            return sys.modules[module]
        try:
            return importlib.import_module(module)
        except Exception as error:
            reason = f"importing {module} failed with {type(error).__name__}: {error}"
            raise self.fail(reason) from error


# -- finding ---------------------------------------------------------------------------------------


def plugins() -> dict[str, Plugin]:
    """Returns namespace -> plugin of every installed one, the broken ones too; `ZOO_PLUGINS=off` or
    `=a,b` restricts them. No code of theirs is imported."""
    return _plugins(os.environ.get("ZOO_PLUGINS", ""))


@cache
def _plugins(wanted: str) -> dict[str, Plugin]:
    from importlib.metadata import entry_points

    found: dict[str, Plugin] = {}
    if wanted.strip() == "off":
        return found
    chosen = {name.strip() for name in wanted.split(",") if name.strip()}
    for entry in sorted(entry_points(group="zoo.plugins"), key=lambda e: (e.name, e.value)):
        if chosen and entry.name not in chosen:
            continue
        distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
        plugin = Plugin(entry.name, entry.value.partition(":")[0].strip(), distribution)
        twin = found.setdefault(entry.name, plugin)
        if twin is plugin:
            _locate(plugin)
        elif (twin.package, twin.distribution) != (plugin.package, distribution):
            both = f"{twin.distribution} and {distribution}"
            twin.error = f"two plugins call themselves {entry.name!r}: {both}; remove one."
        # else one distribution seen twice: an editable install and its source
    return found


def forget_plugins() -> None:
    """Lets the next look find plugins that came or went (see zoo.registry.forget)."""
    _plugins.cache_clear()


def _locate(plugin: Plugin) -> None:
    """Finds the package's folder and looks at the names below conf/, without an import."""
    try:
        check_namespace(plugin.name)
        plugin.location = _find_package(plugin.package)
        if plugin.location is None:
            plugin.error = f"there is no package {plugin.package!r}; install it again."
            return
        outside = _outside(plugin.location / "conf", plugin.name)
    except PluginError as error:
        plugin.error = str(error)
        return
    except Exception as error:  # whatever is wrong here must not take other names with it
        plugin.error = f"{type(error).__name__}: {error}"
        return
    if outside:
        plugin.error = (
            f"its names must lie under conf/{outside.parent.name}/{plugin.name}/, "
            f"found {outside.name!r}."
        )


def check_namespace(name: str) -> None:
    """Raises PluginError unless a plugin can be called so."""
    if not NAMESPACE.fullmatch(name) or name in RESERVED:
        taken = " or ".join(RESERVED)
        raise PluginError(f"{name!r} is no namespace: take a lower-case word, not {taken}.")


def _find_package(package: str) -> Path | None:
    """Returns the folder of a package, dotted or not, without importing its parents as
    importlib.util.find_spec would."""
    top, *inner = package.split(".")
    spec = importlib.util.find_spec(top)
    for folder in (spec and spec.submodule_search_locations) or ():
        if Path(folder, *inner).is_dir():
            return Path(folder, *inner)
    return None


def _outside(conf: Path, namespace: str) -> Path | None:
    """Returns the first thing below conf/<group>/ that does not lie in the plugin's namespace."""
    groups = sorted(conf.iterdir()) if conf.is_dir() else []
    for group in groups:
        if group.is_dir() and not group.name.startswith("_"):
            for entry in sorted(group.iterdir()):
                if entry.name != namespace and not entry.name.startswith(("_", ".")):
                    return entry
    return None


# -- asking ----------------------------------------------------------------------------------------


def plugin_of(name: str, group: str) -> Plugin:
    """Returns the plugin that owns `plugin/name`; raises UnknownName that names what is
    installed."""
    problem = namespace_problem(name)
    if problem:
        raise UnknownName(f"Unknown kind {name!r} of {group}: {problem}")
    return plugins()[name.partition("/")[0]]


def namespace_problem(name: str) -> str:
    """Returns why the plugin of `plugin/name` cannot be asked: it is not installed, or shut out;
    empty when it can be, or when no plugin is meant. Raises PluginError when it is broken."""
    namespace, slash, _ = name.partition("/")
    if not slash:
        return ""
    if namespace in plugins():
        plugins()[namespace].check()
        return ""
    if namespace in _plugins(""):
        return f"ZOO_PLUGINS={os.environ['ZOO_PLUGINS']} shuts out plugin {namespace!r}."
    return f"no plugin {namespace!r} is installed.{hint(namespace, plugins(), 'See zoo plugins.')}"


def describe() -> list[Report]:
    """Returns a report on every installed plugin, sorted by namespace, after looking closely.

    A report holds where the plugin comes from (`name`, `distribution` with its version, `package`,
    `location`), its `state` (`ok` or `broken`) with all `problems`, and what it adds: `names` and
    `kinds` by group, `formats`, and in `adds` the counts of names by group.

    Unlike `plugins()`, this imports the schemas, `plugin.py` and `formats.py` of each, reads every
    node that is a file, with each of its weights tags, and checks it against its schema. Nothing is
    built, and nothing heavy imported unless a plugin's schemas do that. It raises nothing: a broken
    plugin is one with problems.
    """
    from zoo.registry.report import report

    return [report(plugin) for _, plugin in sorted(plugins().items())]
