"""From what a person wrote to a typed config: parts are looked up, every key is checked."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from zoo.errors import ConfigError, UnknownName
from zoo.registry.overrides import lay
from zoo.registry.schema import KINDS, type_hints
from zoo.registry.suggest import nearest
from zoo.registry.values import check_range, check_type, in_words, is_optional, show

__all__ = ["fill", "resolve", "resolve_mapping", "validate"]


def resolve(group: str, value: str | Mapping, path: str = "", *, stored: bool = False) -> Any:
    """Returns the typed config of a name, of `{name: …, key: …}` or of `{kind: …, key: …}`.

    Args:
        group: what it is a name of (see `zoo list --groups`).
        value: what a person, a node or a file wrote.
        path: dotted place that errors begin with.
        stored: `value` was written by `to_mapping`, perhaps by a stranger: every part must say its
            kind, and no node of this machine can be named.

    Raises: UnknownName, ConfigError, PluginError.
    """
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{path or group}: expected the name of a {group} or a mapping, got {show(value)}."
        )
    if "name" in value:
        value = _named(group, value, path, stored)
    return resolve_mapping(group, value, path, stored=stored)


def _named(group: str, value: Mapping, path: str, stored: bool) -> dict[str, Any]:
    """Returns the node that `{name: …}` names with the other keys laid over it."""
    from zoo.registry.nodes import read_tagged

    name, where = value["name"], path or group
    if stored:
        raise ConfigError(
            f"{where}: a stored config says the kind of each {group} and names none, "
            f"got {show(name)}."
        )
    if "kind" in value:
        raise ConfigError(
            f"{where}: give a {group} by its name or by its kind, not both "
            f"({show(name)}, {show(value['kind'])})."
        )
    if not isinstance(name, str):
        raise ConfigError(f"{where}.name: expected the name of a {group}, got {show(name)}.")
    try:
        node = read_tagged(group, name)
    except UnknownName as error:
        raise UnknownName(f"{path}: {error}" if path else str(error)) from None
    return lay(node, {key: item for key, item in value.items() if key != "name"})


def resolve_mapping(group: str, value: Mapping, path: str = "", *, stored: bool = False) -> Any:
    """Returns the typed config of a mapping that says its `kind`; `path` leads every error
    message."""
    from zoo.registry.nodes import kind_schema

    name = value.get("kind")
    if not isinstance(name, str):
        raise ConfigError(
            f"{path or group}: a {group} needs a name or a kind, got {show(dict(value))}."
        )
    try:
        schema = kind_schema(group, name)
    except UnknownName as error:
        raise UnknownName(f"{path}: {error}" if path else str(error)) from None
    return validate(schema, {k: v for k, v in value.items() if k != "kind"}, path, stored=stored)


def validate(schema: type, values: Mapping, path: str = "", *, stored: bool = False) -> Any:
    """Returns `schema(**values)` after checking every key, type and range; raises ConfigError with
    one sentence."""
    title = getattr(schema, "zoo_kind", schema.__name__)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path or title}: expected a mapping of keys, got {show(values)}.")
    hints = type_hints(schema)
    fields = {field.name: field for field in dataclasses.fields(schema) if field.init}
    for key in values:
        if key not in fields:
            raise ConfigError(_unknown_key(title, fields, hints, key, values[key], path))
    resolved = {}
    for key, field in fields.items():
        if key in values:
            resolved[key] = _value(field, hints[key], values[key], _join(path, key), stored)
        elif "role" in field.metadata:  # here, not in its default_factory, so that errors say where
            default = field.metadata["default"]
            resolved[key] = _value(field, hints[key], default, _join(path, key), stored=False)
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{_join(path, key)}: must be given ({in_words(hints[key])}).")
    try:
        config = schema(**resolved)
        if hasattr(config, "check"):
            config.check()
    except ConfigError as error:  # a schema speaks of its own keys
        raise ConfigError(_join(path, str(error))) from None
    return config


def _unknown_key(title: str, fields: Any, hints: Any, key: Any, value: Any, path: str) -> str:
    known = nearest(str(key), fields)
    if known is not None:
        metadata = fields[known].metadata
        expected = f"a {metadata['group']}" if "group" in metadata else in_words(hints[known])
        advice = f"Did you mean {known!r}? It is {expected}."
    else:
        advice = f"It takes: {', '.join(sorted(fields)) or 'no keys'}."
    return f"{_join(path, str(key))}: {title!r} has no such key (given: {show(value)}). {advice}"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


# -- the value of one key --------------------------------------------------------------------------


def _value(
    field: dataclasses.Field, annotation: Any, value: Any, path: str, stored: bool = False
) -> Any:
    metadata = field.metadata
    role = metadata.get("role")
    if role in ("part", "parts"):
        return fill(metadata, annotation, value, path, stored)
    if role == "section":
        if isinstance(value, metadata["schema"]):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}: expected a mapping of keys, got {show(value)}.")
        return validate(metadata["schema"], lay(metadata["default"], value), path, stored=stored)
    value = check_type(annotation, value, path)
    check_range(metadata, value, path)
    return value


def fill(metadata: Mapping, annotation: Any, value: Any, path: str, stored: bool = False) -> Any:
    """Returns the part, or the list of parts, that a key declared by `part` or `parts` holds.

    A mapping that says neither name nor kind changes keys of the key's default part.
    """
    group, default = metadata["group"], metadata["default"]
    if metadata["role"] == "part":
        if value in (None, "none"):
            if default is None or is_optional(annotation):
                return None
            raise ConfigError(f"{path}: a {group} is needed here; see zoo list {group}.")
        return _one(group, default, _base(annotation), value, path, stored)
    several = isinstance(value, (list, tuple))
    # A list starts from nothing; a single mapping may change keys of a single default.
    default = None if several or isinstance(default, list) else default
    base = next(iter(typing.get_args(annotation)), None)
    return [
        _one(group, default, base, item, f"{path}.{index}" if several else path, stored)
        for index, item in enumerate(value if several else [value])
        if item not in (None, "none")
    ]


def _one(group: str, default: Any, base: Any, value: Any, path: str, stored: bool) -> Any:
    if not dataclasses.is_dataclass(value):
        if isinstance(value, Mapping) and not stored and not {"name", "kind"} & value.keys():
            if default in (None, "none"):
                raise ConfigError(f"{path}: this {group} is null; say which one by 'name'.")
            value = lay(default, value)
        value = resolve(group, value, path, stored=stored)
    asked = isinstance(base, type) and dataclasses.is_dataclass(base)
    if asked and not isinstance(value, base):
        fitting = sorted(k for (g, k), s in KINDS.items() if g == group and issubclass(s, base))
        raise ConfigError(
            f"{path}: {getattr(value, 'zoo_kind', type(value).__name__)!r} cannot stand here, "
            f"since it is no {base.__name__} (as are {', '.join(fitting)})."
        )
    return value


def _base(annotation: Any) -> Any:
    """Returns the schema that a part must extend: the annotation without `| None`."""
    options = [a for a in typing.get_args(annotation) if a is not type(None)]
    return options[0] if len(options) == 1 else annotation
