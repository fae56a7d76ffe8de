"""`key.path=value` overrides, as a person types them in Python or in a shell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zoo.errors import ConfigError
from zoo.registry.yaml import parse_scalar

__all__ = ["apply_overrides", "parse_override"]


def parse_override(text: str) -> tuple[list[str], Any]:
    """Returns (path, value) of one `a.b=value`; leading `+` signs are accepted and mean nothing here."""
    key, equals, value = text.partition("=")
    path = key.strip().lstrip("+").split(".")
    if not equals or not all(path):
        raise ConfigError(f"Override {text!r} is not of the form key.path=value.")
    return path, parse_scalar(value.strip())


def apply_overrides(
    mapping: Mapping, overrides: Iterable[str] | Mapping[str, Any]
) -> dict[str, Any]:
    """Returns a copy of `mapping` with every override set; a part written as a name opens into `{name: …}` for its keys."""
    from zoo.registry.schema import merge

    pairs = (
        [(key.split("."), value) for key, value in overrides.items()]
        if isinstance(overrides, Mapping)
        else [parse_override(text) for text in overrides]
    )
    changed: Any = dict(mapping)
    for path, value in pairs:
        changed = _set(changed, path, value, merge)
    return changed


def _set(node: Any, path: list[str], value: Any, merge: Any) -> Any:
    if not path:
        return merge(node, value)
    key, rest = path[0], path[1:]
    if isinstance(node, list):
        if not key.isdigit() or int(key) >= len(node):
            raise ConfigError(f"{key!r} is no index of a list of {len(node)}.")
        return [
            _set(item, rest, value, merge) if i == int(key) else item for i, item in enumerate(node)
        ]
    if isinstance(node, str):  # `position: rope` and the override `position.theta=…`
        node = {"name": node}
    node = dict(node) if isinstance(node, Mapping) else {}
    node[key] = _set(node[key], rest, value, merge) if key in node else _nest(rest, value)
    return node


def _nest(path: list[str], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value
