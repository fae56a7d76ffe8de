"""Schemas: typed, torch-free dataclasses that own every key, type, default, range and comment of a config node.

A schema is declared beside the code that it configures, in the room's `schema.py`:

    @kind("norm", "rms", builds="zoo.nn.norm:RMSNorm")
    @dataclass(kw_only=True)
    class RMSNormConfig(NormConfig):
        eps: float = setting(1e-6, "added under the root", low=0.0)

`resolve` turns what a person wrote (a name, or a mapping) into such a dataclass and refuses everything that the
schema does not know; `to_mapping` is its inverse; `build` makes the object that the kind stands for.
"""

from __future__ import annotations

import dataclasses
import importlib
import types
import typing
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
from typing import Any, Literal, TypeVar, Union

from zoo.errors import ConfigError
from zoo.registry.suggest import hint

__all__ = [
    "build",
    "kind",
    "merge",
    "part",
    "parts",
    "resolve_mapping",
    "section",
    "setting",
    "to_mapping",
]

T = TypeVar("T", bound=type)
KINDS: dict[tuple[str, str], type] = {}


# -- declaring -------------------------------------------------------------------------------------------------------


def kind(group: str, name: str, *, builds: str) -> Callable[[T], T]:
    """Registers a dataclass as the schema of `kind: name` in `group`; `builds` is `"module:Class"`, imported when built."""

    def register(schema: T) -> T:
        other = KINDS.setdefault((group, name), schema)
        if other is not schema and (other.__module__, other.__qualname__) != (
            schema.__module__,
            schema.__qualname__,
        ):
            raise ConfigError(
                f"Two schemas claim kind '{name}' of {group}: {other.__module__} and {schema.__module__}."
            )
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
    """A plain key: its default, what it means, and its range (`low <= value <= high`, `value > above`)."""
    metadata = {"doc": doc, "low": low, "high": high, "above": above}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: deepcopy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _typed(role: str, group: str, default: Any, doc: str) -> Any:
    metadata = {"doc": doc, "role": role, "group": group, "default": default}
    return dataclasses.field(
        default_factory=lambda: _fill(role, group, None, default, ""), metadata=metadata
    )


def part(group: str, default: str | Mapping | None, doc: str = "") -> Any:
    """A key that holds a part of `group`: written as a name, as `{name: …, key: …}`, or null when `default` is null."""
    return _typed("part", group, default, doc)


def parts(group: str, default: str | Mapping | list, doc: str = "") -> Any:
    """A key that holds one part of `group` or a list of them; always a list once resolved."""
    return _typed("parts", group, default, doc)


def section(schema: type, default: Mapping | None = None, doc: str = "") -> Any:
    """A nested block of keys with a schema of its own; `default` changes some of the schema's defaults."""
    metadata = {"doc": doc, "role": "section", "schema": schema, "default": default or {}}
    return dataclasses.field(
        default_factory=lambda: validate(schema, default or {}, ""), metadata=metadata
    )


# -- reading ---------------------------------------------------------------------------------------------------------


def merge(base: Any, change: Any) -> Any:
    """Deep merge: mappings join key by key, anything else is replaced (the rule of OmegaConf)."""
    if isinstance(base, Mapping) and isinstance(change, Mapping):
        joined = dict(base)
        for key, value in change.items():
            joined[key] = merge(joined[key], value) if key in joined else value
        return joined
    return change


def resolve_mapping(group: str, value: Mapping, path: str = "") -> Any:
    """Returns the typed config of a mapping that says its `kind`; `path` leads every error message."""
    from zoo.registry.nodes import kind_schema

    name = value.get("kind")
    if not isinstance(name, str):
        raise ConfigError(
            f"{path or group}: a {group} needs a name or a kind, got {_show(dict(value))}."
        )
    schema = kind_schema(group, name)
    return validate(schema, {k: v for k, v in value.items() if k != "kind"}, path)


def validate(schema: type, values: Mapping, path: str) -> Any:
    """Returns `schema(**values)` after checking every key, type and range; raises ConfigError with one sentence."""
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{path or schema.__name__}: expected a mapping of keys, got {_show(values)}."
        )
    fields = {field.name: field for field in dataclasses.fields(schema) if field.init}
    hints = type_hints(schema)
    for key in values:
        if key not in fields:
            where = f"{path}.{key}" if path else str(key)
            title = f"{schema.zoo_kind!r}" if hasattr(schema, "zoo_kind") else schema.__name__
            raise ConfigError(
                f"{where}: {title} has no such key (given: {_show(values[key])})."
                + hint(str(key), fields, f"It takes: {', '.join(sorted(fields)) or 'no keys'}.")
            )
    resolved = {}
    for key, value in values.items():
        where = f"{path}.{key}" if path else key
        resolved[key] = _value(fields[key], hints[key], value, where)
    missing = [
        name
        for name, field in fields.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(
            f"{path or schema.__name__}: {', '.join(map(repr, missing))} must be given."
        )
    try:
        config = schema(**resolved)
        check = getattr(config, "check", None)
        if check is not None:
            check()
    except ConfigError as error:
        text = str(error)
        raise ConfigError(
            f"{path}.{text}" if path and not text.startswith(path) else text
        ) from None
    return config


@cache
def type_hints(schema: type) -> dict[str, Any]:
    """Returns the resolved annotations of a schema."""
    return typing.get_type_hints(schema)


def _value(field: dataclasses.Field, annotation: Any, value: Any, path: str) -> Any:
    role = field.metadata.get("role")
    if role == "section":
        if dataclasses.is_dataclass(value):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}: expected a mapping of keys, got {_show(value)}.")
        return validate(field.metadata["schema"], merge(field.metadata["default"], value), path)
    if role is not None:
        return _fill(
            role, field.metadata["group"], value, field.metadata["default"], path, given=True
        )
    value = check_type(annotation, value, path)
    for bound, wrong, words in (
        ("low", lambda v, b: v < b, "at least"),
        ("high", lambda v, b: v > b, "at most"),
        ("above", lambda v, b: v <= b, "more than"),
    ):
        limit = field.metadata.get(bound)
        numbers = value if isinstance(value, (list, tuple)) else [value]
        if limit is not None and any(
            isinstance(v, (int, float)) and wrong(v, limit) for v in numbers
        ):
            raise ConfigError(f"{path}: must be {words} {limit}, got {_show(value)}.")
    return value


def _fill(role: str, group: str, value: Any, default: Any, path: str, given: bool = False) -> Any:
    """Resolves a part (or a list of parts), laying a mapping without a name over the key's default."""
    from zoo.registry.nodes import resolve

    if not given:
        value = default
    if role == "parts":
        items = value if isinstance(value, (list, tuple)) else [value]
        base = default if isinstance(default, Mapping) and len(items) == 1 else None
        found = []
        for index, item in enumerate(items):
            where = f"{path}.{index}" if isinstance(value, (list, tuple)) else path
            if item is None or item == "none":
                continue
            found.append(_fill("part", group, item, base, where, given=True))
        return found
    if value is None:
        if given and default is not None:
            raise ConfigError(f"{path}: a {group} is needed here; name one (see zoo list {group}).")
        return None
    if dataclasses.is_dataclass(value):
        return value
    if isinstance(value, Mapping) and "name" not in value and "kind" not in value:
        base = {"name": default} if isinstance(default, str) else default
        if base is None:
            raise ConfigError(f"{path}: this {group} is null; say which one by 'name'.")
        value = merge(base, value)
    return resolve(group, value, path)


def check_type(annotation: Any, value: Any, path: str) -> Any:
    """Returns `value` as the annotated type (an int serves as a float); raises ConfigError saying expected and given."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return value
    if origin is Literal:
        if value in arguments and not (
            isinstance(value, bool) and not any(isinstance(a, bool) for a in arguments)
        ):
            return value
        # Only strings that look alike are worth suggesting.
        close = (
            hint(str(value), [a for a in arguments if isinstance(a, str)])
            if isinstance(value, str)
            else ""
        )
        raise ConfigError(
            f"{path}: must be one of {', '.join(map(str, arguments))}, got {_show(value)}.{close}"
        )
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [a for a in arguments if a is not type(None)]
        for option in options:
            try:
                return check_type(option, value, path)
            except ConfigError as error:
                if len(options) == 1:
                    raise error from None
        raise ConfigError(f"{path}: expected {_name(annotation)}, got {_show(value)}.")
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path}: expected a list, got {_show(value)}.")
        if origin is tuple and arguments[-1] is not Ellipsis:
            if len(value) != len(arguments):
                raise ConfigError(
                    f"{path}: expected {len(arguments)} values, got {_show(list(value))}."
                )
            return [
                check_type(a, v, f"{path}.{i}")
                for i, (a, v) in enumerate(zip(arguments, value, strict=True))
            ]
        return [check_type(arguments[0], v, f"{path}.{i}") for i, v in enumerate(value)]
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}: expected a mapping, got {_show(value)}.")
        return {str(k): check_type(arguments[1], v, f"{path}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(annotation):
        return value if isinstance(value, annotation) else validate(annotation, value, path)
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if annotation in (int, float, str, bool):
        if isinstance(value, annotation) and not (annotation is int and isinstance(value, bool)):
            return value
        raise ConfigError(f"{path}: expected {_name(annotation)}, got {_show(value)}.")
    if annotation in (dict, list) and isinstance(value, annotation):
        return value
    raise ConfigError(f"{path}: expected {_name(annotation)}, got {_show(value)}.")


def _name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_name(a) for a in arguments)
    if annotation is type(None):
        return "null"
    return {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}.get(
        annotation, getattr(annotation, "__name__", str(annotation))
    )


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# -- writing and building --------------------------------------------------------------------------------------------


def to_mapping(config: Any, omit: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the plain, JSON-able mapping of a config (with its `kind`); `resolve` of it gives an equal config."""
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
    """Returns the object that `config`'s kind stands for: its class, imported now, called with the config and context."""
    module, _, name = config.zoo_builds.partition(":")
    return getattr(importlib.import_module(module), name)(config, **context)
