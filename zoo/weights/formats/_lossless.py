"""An export must mean what it came from: what a public format has no word for is not dropped."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.registry import resolve
from zoo.weights.formats.keys import differences, show

__all__ = ["checked"]


def checked(
    format: Any,
    config: Any,
    public: dict[str, Any],
    form: Callable[[Any], dict[str, Any]],
    names: Collection[str] = frozenset(),
    ignore: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Returns `public` if reading it, beside tensors of these names, gives `config` again; raises
    ConfigError naming what is lost.

    This is what keeps an export honest, and the one place where it is looked after. `form` makes of
    a config what its kind of format should hold, the same for two ways to write the same; `ignore`
    lists the beginnings of paths in that which do not touch what the loaded model computes.
    """
    node = {"kind": format.kind, **format.read_config(copy.deepcopy(public), names)}
    ours, back = form(config), form(resolve("model", node))
    lost = [path for path in differences(ours, back) if not path.startswith(ignore)]
    if lost:
        said, meant = (show(_at(value, lost[0])) for value in (ours, back))
        raise ConfigError(
            f"Format {format.name!r} has no word for {lost[0]} = {said} (it means {meant}); format "
            "'zoo' holds every model."
        )
    return public


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value[int(key)] if isinstance(value, list) else (value or {}).get(key)
    return value
