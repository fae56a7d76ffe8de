"""Hydra, made to agree with zoo's own reader: where nodes are found, and how `key=value` is laid
over them.

Hydra chooses and composes the nodes (`model=…`, `experiment=…`, defaults lists). It cannot lay
values over them the way people write them, for two reasons. A node holds only what differs from its
schema, so `model.backbone.depth=3` names a key that is not there, which Hydra refuses; and a part
may be a plain name (`position: rope`), which Hydra replaces by an empty mapping when
`position.theta=5` reaches into it, so that `rope` is lost. So `Loader` gives Hydra the choices
alone and lays the values with `zoo.registry.apply_overrides`, the function behind `zoo.config`.
That happens inside `load_configuration`, which every road takes: runs, each job of a sweep,
`--cfg`, `--help`.

This module imports hydra, and is imported by the commands that are Hydra apps only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict
from omegaconf.errors import OmegaConfBaseException

from zoo.errors import ConfigError, UnknownName
from zoo.registry import apply_overrides, conf_folders, resolve_mapping
from zoo.registry.folders import GROUPS, known_names
from zoo.registry.nodes import with_required
from zoo.registry.plugins import plugins
from zoo.registry.suggest import hint

__all__ = ["Loader", "installed", "typed"]


@contextmanager
def installed() -> Iterator[None]:
    """Makes Hydra look where zoo looks and lay values as zoo does, for a while: this may run in a
    process that has a Hydra app of its own."""
    import hydra._internal.hydra as app

    Plugins.instance().register(ZooSearchPath)
    Plugins.instance().register(MadeUpNodes)
    plain = app.ConfigLoaderImpl
    app.ConfigLoaderImpl = Loader  # type: ignore[misc]  # Hydra has no public place to choose a loader
    try:
        yield
    finally:
        app.ConfigLoaderImpl = plain  # type: ignore[misc]


class ZooSearchPath(SearchPathPlugin):
    """Adds the places of names to Hydra's search path: `ZOO_CONF_PATH` and plugins, after our
    own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for origin, folder in conf_folders()[1:]:
            search_path.append(provider=origin, path=f"file://{Path(folder).absolute()}")
        search_path.append(provider="plugins", path="zoo://plugins")


class MadeUpNodes(ConfigSource):
    """The names that plugins answer to without holding files for them, such as `timm/resnet50`."""

    @staticmethod
    def scheme() -> str:
        return "zoo"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return False

    def is_config(self, config_path: str) -> bool:
        return self._node(config_path) is not None

    def load_config(self, config_path: str) -> ConfigResult:
        config = OmegaConf.create(dict(self._node(config_path) or {}))
        header: dict[str, str | None] = {"package": None}
        return ConfigResult(self.provider, f"zoo://{config_path}", config, header=header)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return []

    def _node(self, config_path: str) -> Mapping[str, Any] | None:
        group, _, name = config_path.removesuffix(".yaml").partition("/")
        plugin = plugins().get(name.partition("/")[0]) if "/" in name else None
        if group not in GROUPS or plugin is None:
            return None
        return plugin.made_up_node(group, name)


class Loader(ConfigLoaderImpl):
    """Hydra's loader for choices, zoo's rule for values, and a check of the whole."""

    strict = True  # whether what comes out must be valid; not for --help, which shows what there is

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Returns the composed configuration; raises ConfigError and UnknownName besides Hydra's
        own errors."""
        words = OverridesParser.create(config_loader=self).parse_overrides(overrides)
        if validate_sweep_overrides:
            self.validate_sweep_overrides_legal(words, run_mode, from_shell)
        values = [word for word in words if self._is_value(word)]
        choices = [word for word in words if word not in values]
        cfg = super().load_configuration(
            config_name,
            [self._checked(word) for word in choices],
            run_mode,
            from_shell,
            validate_sweep_overrides,
        )
        keys = [str(key) for key in cfg if key != "hydra"]
        base: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, keys), resolve=False)
        fixed = [word for word in values if not word.is_sweep_override()]
        mapping = lay(base, fixed, [word for word in choices if not word.is_hydra_override()])
        with flag_override(cfg, ["struct", "readonly"], [False, False]):
            for key in keys:
                del cfg[key]
            for key, value in mapping.items():
                cfg[key] = value
        self._record(cfg, words)
        if self.strict and run_mode == RunMode.RUN:
            typed(cfg)
        return cfg

    def _is_value(self, word: Override) -> bool:
        if word.is_hydra_override() or word.package is not None:
            return False
        names_group = CachingConfigRepository(self.repository).group_exists(word.key_or_group)
        return not names_group or (not word.is_sweep_override() and isinstance(word.value(), dict))

    def _checked(self, word: Override) -> str:
        """Returns a choice in the words of Hydra, which knows a name by one spelling only; raises
        UnknownName in our words for an option that nothing provides."""
        group, option, line = word.key_or_group, word._value, str(word.input_line)
        if group not in GROUPS or not isinstance(option, str):
            return line
        return f"{line.partition('=')[0]}={check_option(group, option)}"

    def _record(self, cfg: DictConfig, words: list[Override]) -> None:
        """Writes into Hydra's own node which words were given, since it saw the choices only."""
        task = [word for word in words if not word.is_hydra_override()]
        settings = cfg.hydra.job.config.override_dirname
        with flag_override(cfg.hydra, "readonly", False), open_dict(cfg.hydra):
            cfg.hydra.overrides.task = [word.input_line for word in task]
            cfg.hydra.job.override_dirname = get_overrides_dirname(
                overrides=task,
                kv_sep=settings.kv_sep,
                item_sep=settings.item_sep,
                exclude_keys=settings.exclude_keys,
            )


def lay(base: dict[str, Any], values: list[Override], choices: list[Override]) -> dict[str, Any]:
    """Returns the composed nodes with the keys that the chosen weights require, then the values,
    laid over them.

    `resume=RUN` takes that run's own configuration in place of the nodes.
    """
    given = {word.key_or_group: word.value() for word in values if not word.is_delete()}
    if "resume" in given:
        base = _resumed(str(given["resume"]), choices)
    elif isinstance(base.get("model"), Mapping):
        weights: Any = given.get("weights", base.get("weights"))
        base = {**base, "model": with_required(base["model"], weights)}
    for word in values:
        if word.key_or_group == "resume":
            continue
        if word.is_delete():
            base = _without(base, word)
        else:
            base = apply_overrides(base, {word.key_or_group: word.value()})
    return base


def _resumed(folder: str, choices: list[Override]) -> dict[str, Any]:
    from zoo.training.record import read_run_mapping

    mapping = read_run_mapping(folder)
    if mapping is None:
        raise ConfigError(f"resume: {folder} holds no run (no experiment.json).")
    if choices:
        raise ConfigError(
            f"{choices[0].input_line}: resume={folder} goes on with that run's own nodes; "
            "leave it out."
        )
    return mapping


def _without(mapping: dict[str, Any], word: Override) -> dict[str, Any]:
    """Returns the mapping without a key: it goes back to what its schema says."""
    *path, last = word.key_or_group.split(".")
    inner: Any = mapping
    for key in path:
        inner = inner.get(key) if isinstance(inner, Mapping) else None
    if not isinstance(inner, Mapping) or last not in inner:
        known = hint(last, inner if isinstance(inner, Mapping) else ())
        raise ConfigError(f"{word.input_line}: no node here sets {word.key_or_group}.{known}")
    rest = {key: value for key, value in inner.items() if key != last}
    return _replaced(mapping, path, rest)


def _replaced(mapping: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    return {**mapping, path[0]: _replaced(mapping[path[0]], path[1:], value)}


def typed(cfg: DictConfig) -> Any:
    """Returns the typed experiment of a composed configuration; raises ConfigError and
    UnknownName."""
    plain = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    try:
        mapping: Any = OmegaConf.to_container(plain, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from None
    return resolve_mapping("experiment", mapping)


def check_option(group: str, option: str) -> str:
    """Returns the name of an option; raises UnknownName with the nearest one when a group has no
    such."""
    from zoo.registry import find_node, parse_name

    namespace = option.partition("/")[0]
    plugin = plugins().get(namespace) if "/" in option else None
    if plugin is not None and plugin.made_up_node(group, option) is not None:
        return option
    if option in known_names(group, option):
        return option
    parsed = parse_name(option, group) if group == "model" else None
    if parsed is not None and (parsed.scheme or parsed.tag):
        example = (
            f"weights={option}" if parsed.scheme else f"model={parsed.name} weights={parsed.tag}"
        )
        raise UnknownName(
            f"model={option}: a model to train is a node, and its weights are a key of their own, "
            f"as in {example}."
        )
    return find_node(group, option)[0]
