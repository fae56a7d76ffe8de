"""`key.path=value` overrides, as a person types them, and the one rule by which keys join."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zoo.errors import ConfigError
from zoo.registry.yaml import parse_scalar

__all__ = ["apply_overrides", "lay", "merge", "nest", "parse_override"]


def merge(base: Any, change: Any) -> Any:
    """Deep merge: mappings join key by key, anything else is replaced (the rule of OmegaConf).

    So `norm: rms` drops the keys of another norm, while `norm: {name: rms}` keeps those that were
    given before. Only a kind in place of a name, or a name in place of a kind, starts afresh.
    """
    if isinstance(base, Mapping) and isinstance(change, Mapping) and not _crossed(base, change):
        joined = dict(base)
        for key, value in change.items():
            joined[key] = merge(joined[key], value) if key in joined else value
        return joined
    return change


def lay(default: Any, given: Any) -> Any:
    """Lays what was given over a default that nobody wrote: as `merge`, but a part that the default
    names opens for keys without a name, and gives way with its keys to a part of another name."""
    if not isinstance(given, Mapping):
        return given
    if isinstance(default, str) and not {"name", "kind"} & given.keys():
        default = {"name": default}
    if not isinstance(default, Mapping) or _crossed(default, given):
        return given
    if default.get("name") != given.get("name", default.get("name")):
        return given
    joined = dict(default)
    for key, value in given.items():
        joined[key] = lay(joined[key], value) if key in joined else value
    return joined


def _crossed(base: Mapping, change: Mapping) -> bool:
    return ("kind" in change and "name" in base) or ("name" in change and "kind" in base)


def nest(path: Iterable[str], value: Any) -> Any:
    """Returns `{a: {b: value}}` of the path a, b."""
    for key in reversed(list(path)):
        value = {key: value}
    return value


def parse_override(text: str) -> tuple[list[str], Any]:
    """Returns (path, value) of one `a.b=value`; leading `+` signs are accepted and mean nothing
    here."""
    key, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
    path = key.strip().lstrip("+").split(".")
    if not equals or not all(path):
        raise ConfigError(f"Override {text!r} is not of the form key.path=value.")
    return path, parse_scalar(value.strip())


def apply_overrides(
    mapping: Mapping, overrides: Iterable[str] | Mapping[str, Any]
) -> dict[str, Any]:
    """Returns a copy of `mapping` with every override set; a part written as a name opens into
    `{name: …}` for its keys. Raises: ConfigError."""
    pairs = (
        [(key.split("."), value) for key, value in overrides.items()]
        if isinstance(overrides, Mapping)
        else [parse_override(text) for text in overrides]
    )
    changed: Any = dict(mapping)
    for path, value in pairs:
        changed = _set(changed, path, value, ())
    return changed


def _set(node: Any, path: list[str], value: Any, done: tuple[str, ...]) -> Any:
    if not path:
        return merge(node, value)
    key, rest = path[0], path[1:]
    if isinstance(node, list):
        if not key.isdecimal() or int(key) >= len(node):
            raise ConfigError(
                f"{'.'.join(done)}: {key!r} is no index of this list of {len(node)}, "
                "of which 0 is the first."
            )
        index = int(key)
        return [*node[:index], _set(node[index], rest, value, (*done, key)), *node[index + 1 :]]
    if isinstance(node, str):  # `position: rope` and the override `position.theta=…`
        node = {"name": node}
    node = dict(node) if isinstance(node, Mapping) else {}
    node[key] = _set(node[key], rest, value, (*done, key)) if key in node else nest(rest, value)
    return node
