"""Plain values against annotations: what is allowed, and one sentence when it is not."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

from zoo.errors import ConfigError
from zoo.registry.suggest import hint

__all__ = ["check_range", "check_type", "in_words", "is_optional", "show"]

_WORDS = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def check_type(annotation: Any, value: Any, path: str) -> Any:
    """Returns `value` as the annotated type (a whole number serves as a number, a tuple becomes a
    list); raises ConfigError saying what was expected and given."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return value
    if origin is Literal:
        return _check_option(arguments, value, path)
    if origin in (Union, types.UnionType):
        return _check_union(annotation, arguments, value, path)
    if origin is list:
        _expect(isinstance(value, (list, tuple)), "a list", value, path)
        return [check_type(arguments[0], v, f"{path}.{i}") for i, v in enumerate(value)]
    if origin is tuple:
        _expect(isinstance(value, (list, tuple)), f"a list of {len(arguments)}", value, path)
        _expect(len(value) == len(arguments), f"{len(arguments)} values", list(value), path)
        pairs = enumerate(zip(arguments, value, strict=True))
        return [check_type(a, v, f"{path}.{i}") for i, (a, v) in pairs]
    if origin is dict:
        _expect(isinstance(value, Mapping), "a mapping", value, path)
        return {str(k): check_type(arguments[1], v, f"{path}.{k}") for k, v in value.items()}
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        from zoo.registry.typed import validate

        return value if isinstance(value, annotation) else validate(annotation, value, path)
    if annotation is float and type(value) is int:
        value = float(value)
    fits = isinstance(value, annotation) and not (annotation is int and isinstance(value, bool))
    _expect(fits, in_words(annotation), value, path)
    if annotation is float:
        _expect(math.isfinite(value), "a finite number", value, path)
    return value


def _check_option(options: tuple, value: Any, path: str) -> Any:
    for option in options:
        if type(option) is type(value) and option == value:
            return option
    # Only words that look alike are worth suggesting.
    words = [option for option in options if isinstance(option, str)]
    near = hint(value, words) if isinstance(value, str) else ""
    raise ConfigError(
        f"{path}: must be one of {', '.join(map(str, options))}, got {show(value)}.{near}"
    )


def _check_union(annotation: Any, options: tuple, value: Any, path: str) -> Any:
    if value is None and type(None) in options:
        return None
    others = [option for option in options if option is not type(None)]
    for option in others:
        try:
            return check_type(option, value, path)
        except ConfigError:
            if len(others) == 1 and value is not None and not _is_plain(option):
                raise  # it says which part of a longer value is wrong
    raise ConfigError(f"{path}: expected {in_words(annotation)}, got {show(value)}.")


def _is_plain(annotation: Any) -> bool:
    return annotation in _WORDS


def _expect(fits: bool, what: str, value: Any, path: str) -> None:
    if not fits:
        raise ConfigError(f"{path}: expected {what}, got {show(value)}.")


def check_range(metadata: Mapping[str, Any], value: Any, path: str) -> None:
    """Raises ConfigError when a number, or one of a list of them, lies outside of a key's range."""
    for bound, fits, words in (
        ("low", lambda number, limit: number >= limit, "at least"),
        ("high", lambda number, limit: number <= limit, "at most"),
        ("above", lambda number, limit: number > limit, "more than"),
    ):
        limit = metadata.get(bound)
        for number in value if isinstance(value, list) else [value]:
            if limit is not None and type(number) in (int, float) and not fits(number, limit):
                raise ConfigError(f"{path}: must be {words} {limit}, got {show(value)}.")


def is_optional(annotation: Any) -> bool:
    """Returns whether an annotation allows null."""
    return annotation is Any or type(None) in typing.get_args(annotation)


def in_words(annotation: Any) -> str:
    """Returns a type as an error says it: `a whole number or null`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if annotation in (None, type(None)):
        return "null"
    if origin in (Union, types.UnionType):
        return " or ".join(in_words(a) for a in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (list, tuple) or annotation is list:
        return "a list"
    if origin is dict or annotation is dict or dataclasses.is_dataclass(annotation):
        return "a mapping"
    return getattr(annotation, "__name__", str(annotation))


def show(value: Any) -> str:
    """Returns a value as an error shows it: short, on one line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
