"""config.json from a stranger: plain data, or a refusal that names the file and the key.

A configuration may choose among what is installed and nothing else. It is read with `json` alone;
nothing in it is resolved, interpolated or imported. The tricks refused here were all used against
other libraries: `_target_` and friends (code chosen by a config: CVE-2025-23304, CVE-2026-22584),
`${...}` (secrets read from the environment into a config), `auto_map` and `trust_remote_code` (code
from the repository itself: CVE-2026-5241), `_attn_implementation_internal` and attention kernels
named by repository (code downloaded at build: CVE-2026-4372), and files that exhaust memory or the
stack, or say two things at once.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_LAYERS", "read_hub_config", "read_json"]

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_LAYERS = 10_000  # building more would take hours, and listing them all memory
_MAX_DIGITS = 400  # of one number; more is only good for keeping a processor busy

_LAYERS = re.compile(r"(^|_)(layers?|depths?)$")  # depth, num_hidden_layers, n_layer, …

# Keys that choose code in other libraries. Refused wherever they stand, whatever they say.
_CODE_KEYS = {"auto_map", "trust_remote_code", "custom_pipelines", "custom_generate"}
_HYDRA_KEYS = {"_target_", "_args_", "_partial_", "_recursive_", "_convert_"}
# Keys that name an implementation: a plain word chooses what is installed, others may fetch it.
_IMPLEMENTATION = re.compile(r"_?\w*implementation(_internal)?")
_WORD = re.compile(r"[A-Za-z0-9_]{0,40}")


def read_hub_config(
    path: str | os.PathLike[str], *, foreign: bool = False, lists: bool = False
) -> Any:
    """Read a config.json that may come from anyone.

    Args:
        path: the file.
        foreign: it is another library's (transformers, timm): its keys may begin with `_` and its
            texts hold `${`; only what chooses code there is refused. Nothing is interpolated.
        lists: it may also be a list (sentence-transformers' modules.json).

    Returns:
        The object as plain dicts, lists, strings, finite numbers, booleans and None.

    Raises:
        ConfigError: one sentence naming the file and the key.
    """
    path = Path(path)
    config = read_json(path, lists=lists)
    for key, value, where in _walk(config):
        reason = _foreign_fault(key, value) if foreign else _fault(key, value)
        if _LAYERS.search(key) and isinstance(value, int) and value > MAX_LAYERS:
            reason = f"is {value:,}, and no model has more than {MAX_LAYERS:,} layers"
        if reason:
            raise ConfigError(f"{path}: {where} {reason}; it is refused.")
    return config


def read_json(
    path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES, lists: bool = False
) -> Any:
    """Read a JSON object (or, with `lists`, a list) of bounded size and depth, without duplicate
    keys, NaN or infinity.

    Raises:
        ConfigError: one sentence naming the file.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    if len(data) > max_bytes:
        raise ConfigError(f"{path} is larger than {max_bytes >> 20} MiB, which no such file is.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}).") from None
    if _depth(text) > MAX_DEPTH:
        raise ConfigError(f"{path} is nested deeper than {MAX_DEPTH} levels.")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            keys = [key for key, _ in items]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ConfigError(f"{path} gives the key {_shown(twice)} twice.")
        return found

    def number(text: str) -> int | float:
        if len(text) > _MAX_DIGITS:
            raise ConfigError(f"{path} holds a number of {len(text)} digits.")
        value = float(text) if any(c in text for c in ".eE") else int(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{path} holds {text}, which is not a finite number.")
        return value

    def constant(name: str) -> None:
        raise ConfigError(f"{path} holds {name}, which is not JSON.")

    try:
        value = json.loads(
            text,
            object_pairs_hook=pairs,
            parse_constant=constant,
            parse_int=number,
            parse_float=number,
        )
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not JSON (line {error.lineno}: {error.msg}).") from None
    if not isinstance(value, (dict, list) if lists else dict):
        raise ConfigError(f"{path} is not a JSON object.")
    return value


def _depth(text: str) -> int:
    """How deep brackets nest, counted without recursion and outside of strings."""
    deepest = level = 0
    inside = False
    for match in re.finditer(r'\\.|["\[\]{}]', text, re.DOTALL):
        mark = match.group()
        if mark == '"':
            inside = not inside
        elif not inside and mark in "[{":
            level += 1
            deepest = max(deepest, level)
        elif not inside and mark in "]}":
            level -= 1
    return deepest


def _walk(value: Any, where: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every key with its value and its dotted place; items of lists have the empty key."""
    if isinstance(value, dict):
        for key, inner in value.items():
            place = f"{where}.{_shown(key)}" if where else _shown(key)
            yield key, inner, place
            yield from _walk(inner, place)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield "", inner, f"{where}[{i}]"
            yield from _walk(inner, f"{where}[{i}]")


def _fault(key: str, value: Any) -> str:
    if key in _CODE_KEYS:
        return "asks for code from the repository"
    if key.startswith("_"):
        return "begins with an underscore, as keys that choose code do"
    if "${" in key or (isinstance(value, str) and "${" in value):
        return "holds an interpolation (${...})"
    return ""


def _foreign_fault(key: str, value: Any) -> str:
    if key in _CODE_KEYS:
        return "asks for code from the repository"
    if key in _HYDRA_KEYS:
        return "chooses code"
    if _IMPLEMENTATION.fullmatch(key):
        names = value.values() if isinstance(value, dict) else [value]
        plain = all(v is None or isinstance(v, bool) or _is_word(v) for v in names)
        if key.endswith("_internal") or not plain:
            return "chooses code that would be downloaded"
    return ""


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _shown(key: str) -> str:
    """A key as an error may print it: short, on one line."""
    return key if key.isprintable() and len(key) <= 60 else repr(key[:60])
