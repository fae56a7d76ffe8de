"""Schemas: typed, torch-free dataclasses that own every key, type, default, range and comment of a
config node.

A schema is declared beside the code that it configures, in the room's `schema.py`:

    @kind("norm", "rms", builds="zoo.nn.norm:RMSNorm")
    @dataclass(kw_only=True)
    class RMSNormConfig(NormConfig):
        eps: float = setting(1e-6, "added under the root", low=0.0)

`resolve` (in zoo.registry.typed) turns what a person wrote, a name or a mapping, into such a
dataclass and refuses everything that the schema does not know; `to_mapping` is its inverse; `build`
makes the object that the kind stands for.
"""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
from typing import Any, TypeVar

from zoo.errors import ConfigError
from zoo.registry.overrides import merge

__all__ = ["KINDS", "build", "kind", "merge", "part", "parts", "section", "setting", "to_mapping"]

T = TypeVar("T", bound=type[Any])
KINDS: dict[tuple[str, str], type] = {}  # (group, kind) -> schema
RESERVED = ("kind", "name")  # keys that say what a mapping is, so no schema can have them


# -- declaring -------------------------------------------------------------------------------------


def kind(group: str, name: str, *, builds: str) -> Callable[[T], T]:
    """Registers a dataclass as the schema of `kind: name` in `group`; `builds` is `"module:Class"`,
    imported when built."""

    def register(schema: T) -> T:
        other = KINDS.setdefault((group, name), schema)
        if (other.__module__, other.__qualname__) != (schema.__module__, schema.__qualname__):
            raise ConfigError(
                f"Two schemas claim kind {name!r} of {group}: "
                f"{other.__module__} and {schema.__module__}."
            )
        for field in dataclasses.fields(schema):
            if field.name in RESERVED:
                raise ConfigError(
                    f"{schema.__name__} has a key {field.name!r}, which already says what a "
                    "mapping is; call it something else."
                )
        KINDS[group, name] = schema  # of a module that was reloaded, the new one
        schema.zoo_group, schema.zoo_kind, schema.zoo_builds = group, name, builds
        return schema

    return register


def setting(
    default: Any = dataclasses.MISSING,
    doc: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> Any:
    """A plain key: its default, what it means, and its range (`low <= value <= high`,
    `value > above`)."""
    metadata = {"doc": doc, "low": low, "high": high, "above": above}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: deepcopy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def part(group: str, default: str | Mapping | None, doc: str = "") -> Any:
    """A key that holds a part of `group`: written as a name, as `{name: …, key: …}` or as
    `{kind: …, key: …}`; null where `default` is null or the annotation says `| None`."""
    return _typed("part", group, default, doc)


def parts(group: str, default: str | Mapping | list, doc: str = "") -> Any:
    """A key that holds one part of `group`, a list of them or `none`; always a list once
    resolved."""
    return _typed("parts", group, default, doc)


def _typed(role: str, group: str, default: Any, doc: str) -> Any:
    def make() -> Any:
        from zoo.registry.typed import fill

        return fill(metadata, Any, default, "")

    metadata = {"doc": doc, "role": role, "group": group, "default": default}
    return dataclasses.field(default_factory=make, metadata=metadata)


def section(schema: type, default: Mapping | None = None, doc: str = "") -> Any:
    """A nested block of keys with a schema of its own; `default` changes some of the schema's
    defaults."""

    def make() -> Any:
        from zoo.registry.typed import validate

        return validate(schema, default or {})

    metadata = {"doc": doc, "role": "section", "schema": schema, "default": default or {}}
    return dataclasses.field(default_factory=make, metadata=metadata)


@cache
def type_hints(schema: type) -> dict[str, Any]:
    """Returns the resolved annotations of a schema."""
    return typing.get_type_hints(schema)


# -- writing and building --------------------------------------------------------------------------


def to_mapping(config: Any, omit: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the plain, JSON-able mapping of a config (with its `kind`); `resolve` of it gives an
    equal config. It names no node: every part says its kind."""
    mapping: dict[str, Any] = {"kind": config.zoo_kind} if hasattr(config, "zoo_kind") else {}
    for field in dataclasses.fields(config):
        if field.init and field.name not in omit:
            mapping[field.name] = _plain(getattr(config, field.name))
    return mapping


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def build(config: Any, **context: Any) -> Any:
    """Returns the object that `config`'s kind stands for: its class, imported now, called with the
    config and context."""
    module, _, name = config.zoo_builds.partition(":")
    return getattr(importlib.import_module(module), name)(config, **context)
