"""Names are files: where the folders of names are, and what stands in them. Reads no file."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from zoo.errors import ConfigError, PluginError, UnknownName
from zoo.registry.plugins import Plugin, plugins
from zoo.registry.suggest import hint
from zoo.registry.yaml import read_yaml

__all__ = [
    "GROUPS",
    "Group",
    "aliases",
    "check_group",
    "conf_dir",
    "conf_folders",
    "forget",
    "index",
    "known_names",
    "names",
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
    "encoder": Group("zoo.tokenizers", "pixels to a grid of vectors, in a visual tokenizer"),
    "adversary": Group("zoo.training", "networks that tell pictures from reconstructions"),
    "perceptual": Group("zoo.training", "networks whose features pictures are compared by"),
    "quantizer": Group("zoo.tokenizers", "vectors to codes and back"),
    "decoder": Group("zoo.tokenizers", "a grid of vectors to pixels"),
    "reconstruction": Group("zoo.tokenizers", "what a decoder predicts, and its distance"),
    "adapter": Group("zoo.models", "from the features of a vision tower to words"),
    "norm": Group("zoo.nn", "normalisations"),
    "position": Group("zoo.nn", "how a stack knows where a token stands"),
    "attention": Group("zoo.nn", "mixers of information between tokens"),
    "kernel": Group("zoo.nn", "how scores become outputs once q, k and v are projected"),
    "feedforward": Group("zoo.nn", "what happens to each token alone"),
    "convolution": Group("zoo.nn", "what mixes neighbouring tokens"),
    "tuning": Group("zoo.nn", "small trained additions to frozen weights"),
    "data": Group("zoo.data", "data sets by name"),
    "objective": Group("zoo.training", "losses and what they feed the model"),
    "optim": Group("zoo.training", "optimisers"),
    "schedule": Group("zoo.training", "learning rates over time"),
    "trainer": Group("zoo.training", "how long, on what, how often saved"),
    "experiment": Group("zoo.training", "whole experiments for zoo train experiment=…"),
}


def check_group(group: str) -> str:
    """Returns the group; raises UnknownName with the nearest one when there is none such."""
    if group not in GROUPS:
        known = f"Groups: {', '.join(GROUPS)}."
        raise UnknownName(f"Unknown group {group!r}.{hint(str(group), GROUPS, known)}")
    return group


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
    """Returns (origin, folder) of every place that holds names: ours, `ZOO_CONF_PATH`, then the
    plugins'. Raises ConfigError when `ZOO_CONF_PATH` names no folder."""
    folders = [("zoo", conf_dir())]
    for text in os.environ.get("ZOO_CONF_PATH", "").split(os.pathsep):
        if text and not Path(text).is_dir():
            raise ConfigError(f"ZOO_CONF_PATH names {text!r}, which is no folder.")
        if text:
            folders.append((text, Path(text)))
    return folders + [
        (plugin.distribution, plugin.conf) for plugin in plugins().values() if plugin.conf
    ]


# -- names -----------------------------------------------------------------------------------------


def index(group: str) -> dict[str, list[tuple[str, Path]]]:
    """Returns name -> [(origin, file)] of a group; a name found twice keeps both, and reading it is
    an error. No file is read and no torch imported."""
    check_group(group)
    return _index(group, *_environment())


@cache
def _index(group: str, *environment: str) -> dict[str, list[tuple[str, Path]]]:
    found: dict[str, list[tuple[str, Path]]] = {}
    for origin, folder in conf_folders():
        for name in _walk(folder / group):
            found.setdefault(name, []).append((origin, folder / group / f"{name}.yaml"))
    return found


def _walk(folder: Path, prefix: str = "") -> Iterable[str]:
    if folder.is_dir():
        for entry in os.scandir(folder):
            if entry.name.startswith(("_", ".")):
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
            elif entry.name.endswith(".yaml"):
                yield prefix + entry.name[: -len(".yaml")]


def names(group: str = "model", pattern: str | None = None) -> list[str]:
    """Returns the sorted names of a group that match a shell pattern (`vit*`); imports no torch.

    Names that a plugin makes up (`timm/resnet50`) are among them only if the pattern can reach
    them (`timm/*`), since there may be thousands. Raises PluginError when it reaches for a broken
    plugin by name.
    """
    found = set(index(group))
    if pattern is None:
        return sorted(found)
    for plugin in plugins().values():
        found.update(_made_up(plugin, group, pattern))
    return sorted(name for name in found if fnmatch.fnmatchcase(name, pattern))


def _made_up(plugin: Plugin, group: str, pattern: str) -> Iterable[str]:
    literal = pattern[: min((pattern.find(c) for c in "*?[" if c in pattern), default=None)]
    space = f"{plugin.name}/"
    if literal.startswith(space):
        plugin.check()  # it was asked for by name
    elif not space.startswith(literal):
        return ()
    try:
        return plugin.made_up_names(group)
    except PluginError:
        if literal.startswith(space):
            raise
        return ()  # nobody asked for this one: zoo.plugins() tells


def known_names(group: str, name: str) -> Iterable[str]:
    """Returns the names among which a misspelt one is looked for: those of its plugin, made-up ones
    too, or all that are files."""
    namespace, slash, _ = name.partition("/")
    if slash and namespace in plugins():
        return names(group, f"{namespace}/*")
    return index(group)


def spelled(group: str, name: str) -> str:
    """Returns the name of a group that is this one but for hyphens and underscores, which nobody
    need remember; the name itself where there is none, or more than one."""
    return _spellings(group, *_environment()).get(name.replace("_", "-"), name)


@cache
def _spellings(group: str, *environment: str) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for name in _index(group, *environment):
        found.setdefault(name.replace("_", "-"), []).append(name)
    return {key: names[0] for key, names in found.items() if len(names) == 1}


def aliases(group: str) -> dict[str, str]:
    """Returns old name -> new name of a group, from the `aliases.yaml` of every folder of names:
    old names never die. A plugin's begin with its namespace, or it is broken."""
    return _aliases(*_environment()).get(group, {})


@cache
def _aliases(*environment: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    owners = {plugin.conf: plugin for plugin in plugins().values()}
    for _, folder in conf_folders():
        plugin = owners.get(folder)
        try:
            for group, pairs in _read_aliases(folder, f"{plugin.name}/" if plugin else ""):
                found.setdefault(group, {}).update(pairs)
        except ConfigError as error:
            if plugin is None:
                raise
            plugin.fail(str(error))  # told where its names are asked for
    return found


def _read_aliases(folder: Path, prefix: str) -> list[tuple[str, dict[str, str]]]:
    file = folder / "aliases.yaml"
    content = (read_yaml(file) if file.is_file() else None) or {}
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise ConfigError(f"{file} is no mapping of groups to mappings of old names to new ones.")
    outside = [old for pairs in content.values() for old in pairs if not old.startswith(prefix)]
    if outside:
        raise ConfigError(f"{file}: old names must begin with {prefix}, found {outside[0]!r}.")
    return list(content.items())


def _environment() -> tuple[str, str]:
    """Returns what the caches depend on besides what is installed."""
    return os.environ.get("ZOO_CONF_PATH", ""), os.environ.get("ZOO_PLUGINS", "")


def forget() -> None:
    """Empties the caches, for a process in which a plugin or a folder of names came or went."""
    import importlib

    from zoo.registry.plugins import forget_plugins

    importlib.invalidate_caches()
    _index.cache_clear()
    _spellings.cache_clear()
    _aliases.cache_clear()
    forget_plugins()
