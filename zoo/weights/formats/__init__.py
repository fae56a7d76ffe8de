"""Public formats: what other libraries call a model's keys and tensors, and what we call them.

One module a family, torch-free, holding `FORMAT` (or `FORMATS`): the translation of the public
`config.json` both ways and one reversible weight map. Modules are found by walking this folder.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    from zoo.weights.map import WeightMap

__all__ = ["ForeignConfig", "Format", "format_for", "formats", "register_format"]

_REQUIRED = object()


@dataclass(frozen=True)
class Format:
    """One public layout of one family.

    Attributes:
        name: what `zoo.save(format=…)` and a node's weights call it, e.g. `transformers-gpt2`.
        kind: our kind of model.
        read_config: public config.json and the names of its tensors (for configs that cannot tell
            alone) to the keys of our node, without `kind`. Refuses what it does not implement.
        write_config: our typed config to a public config.json.
        weight_map: our typed config to the map of its tensors.
        model_types: values of transformers' `model_type` that it reads.
        architectures: patterns of timm's `architecture` that it reads, matched whole.
    """

    name: str
    kind: str
    read_config: Callable[[dict[str, Any], Collection[str]], dict[str, Any]]
    write_config: Callable[[Any], dict[str, Any]]
    weight_map: Callable[[Any], WeightMap]
    model_types: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()


_EXTRA: dict[str, Format] = {}


def register_format(chosen: Format) -> Format:
    """Adds a plugin's format; raises ConfigError when its name or a model_type is taken."""
    known = {**_shipped(), **_EXTRA}
    if chosen.name in known and known[chosen.name] != chosen:
        raise ConfigError(f"Two weight formats are called {chosen.name!r}.")
    _check_claims([f for f in known.values() if f.name != chosen.name] + [chosen])
    _EXTRA[chosen.name] = chosen
    return chosen


def formats() -> dict[str, Format]:
    """Returns name -> format: the shipped ones and those of working plugins."""
    from zoo.registry.plugins import plugins

    for plugin in plugins().values():
        module = None if plugin.error else plugin.formats()
        for chosen in _declared(module) if module else []:
            register_format(chosen)
    return {**_shipped(), **_EXTRA}


@cache
def _shipped() -> dict[str, Format]:
    found: list[Format] = []
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if not file.stem.startswith("_"):
            found += _declared(importlib.import_module(f"{__name__}.{file.stem}"))
    _check_claims(found)
    return {chosen.name: chosen for chosen in found}


def _declared(module: Any) -> list[Format]:
    return [
        *getattr(module, "FORMATS", ()),
        *([module.FORMAT] if hasattr(module, "FORMAT") else []),
    ]


def _check_claims(found: list[Format]) -> None:
    owners: dict[str, str] = {}
    for chosen in found:
        for claim in chosen.model_types:
            other = owners.setdefault(claim, chosen.name)
            if other != chosen.name:
                raise ConfigError(f"Two formats read model_type {claim!r}: {other}, {chosen.name}.")


def format_for(config: Mapping[str, Any]) -> Format:
    """Returns the format that a public config.json asks for by `model_type` or `architecture`.

    Raises: UnknownName, naming what it says and what can be read.
    """
    known = formats()
    if "model_type" in config:
        said = config["model_type"]
        for chosen in known.values():
            if said in chosen.model_types:
                return chosen
        types = sorted(t for f in known.values() for t in f.model_types)
        from zoo.registry.suggest import hint

        raise UnknownName(
            f"No format reads model_type {said!r}."
            + hint(str(said), types, f"Readable: {', '.join(types)}.")
        )
    if "architecture" in config:
        for chosen in known.values():
            if any(re.fullmatch(p, str(config["architecture"])) for p in chosen.architectures):
                return chosen
        raise UnknownName(f"No format reads architecture {config['architecture']!r}.")
    raise UnknownName(
        "config.json says neither 'zoo', 'model_type' nor 'architecture', so nothing tells what it is."
    )


class ForeignConfig:
    """A public config.json that must be read key by key: what nobody asks for is refused.

    Args:
        config: the parsed JSON.
        name: what errors call it.
    """

    # Keys of bookkeeping that say nothing about the computation.
    HARMLESS = (
        "_name_or_path", "architectures", "dtype", "model_type", "torch_dtype", "transformers_version",
        "use_cache", "return_dict", "output_attentions", "output_hidden_states", "id2label", "label2id",
        "problem_type", "finetuning_task", "task_specific_params", "gradient_checkpointing",
        "chunk_size_feed_forward", "torchscript", "is_encoder_decoder",
    )  # fmt: skip

    def __init__(self, config: Mapping[str, Any], name: str = "config.json") -> None:
        self._left = dict(config)
        self.name = name
        self.ignore(*self.HARMLESS)

    def pop(self, key: str, default: Any = _REQUIRED) -> Any:
        """Returns a key's value and marks it read; raises ConfigError when it is absent."""
        if key in self._left:
            return self._left.pop(key)
        if default is _REQUIRED:
            raise ConfigError(f"{self.name} lacks {key!r}.")
        return default

    def expect(self, key: str, *values: Any) -> None:
        """Refuses any value of a key but these (or its absence)."""
        if key in self._left:
            given = self._left.pop(key)
            if given not in values:
                wanted = " or ".join(repr(v) for v in values)
                raise ConfigError(
                    f"{self.name}: {key}={given!r} is not implemented here, only {wanted}."
                )

    def ignore(self, *keys: str) -> None:
        """Marks keys as read that change nothing in what is computed."""
        for key in keys:
            self._left.pop(key, None)

    def finish(self) -> None:
        """Raises ConfigError naming the keys that nobody read."""
        if self._left:
            left = ", ".join(f"{k}={v!r}" for k, v in sorted(self._left.items()))
            raise ConfigError(f"{self.name} has keys that are not implemented here: {left[:300]}.")
