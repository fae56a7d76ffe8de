"""Public formats: what other libraries call a model's keys and tensors, and what we call them.

One module a family, torch-free, holding `FORMAT` (or `FORMATS`): the translation of the public
`config.json` both ways and one reversible weight map. Modules are found by walking this folder; a
plugin has its own in `<package>/formats.py`. Configs are read through `keys.Keys`, which refuses
what nobody asked for: a key silently ignored is a model that computes something else.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zoo.errors import ConfigError, PluginError, UnknownName

if TYPE_CHECKING:
    from zoo.weights.map import WeightMap

__all__ = ["Format", "find_format", "format_for", "formats", "public_format", "register_format"]


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
        architectures: patterns of timm's `architecture` that it reads, matched whole; a name that
            is spelt out wins over a pattern.
        class_names: values of diffusers' `_class_name` that it reads.
        file: the name that the other library gives to weights in a folder.
        classes: entries of `architectures` that it reads whatever the model type: two libraries may
            call different layouts by one.
        marker: a key that every config of it has and no other format's, for checkpoints that hold
            their config within themselves and name no model type.
        companions: other JSON files of the folder (`preprocessor_config.json`). `read_config` finds
            them in its config under their names, and what `write_config` puts there is written.
        generation: the companion that says how a model writes; what the model's `writing_keys` tell
            of its vocabulary goes there too.
        config: the name of its config.json (`model_index.json` of a pipeline).
        parts: of a model in several files: what goes before the names of each (and a dot) -> file.
            `file` says nothing then.
        texts: the folder of the tokenizer's files.
    """

    name: str
    kind: str
    read_config: Callable[[dict[str, Any], Collection[str]], dict[str, Any]]
    write_config: Callable[[Any], dict[str, Any]]
    weight_map: Callable[[Any], WeightMap]
    model_types: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    file: str = "model.safetensors"
    classes: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    generation: str = ""
    marker: str | None = None
    config: str = "config.json"
    parts: Mapping[str, str] = field(default_factory=dict)
    texts: str = ""


_REGISTERED: list[tuple[Format, str]] = []


def register_format(chosen: Format, origin: str = "registered") -> Format:
    """Adds a format from outside; `origin` says where it is from when it clashes.

    Raises: PluginError when its name or one of its model types is taken.
    """
    entry = (chosen, origin)
    if entry not in _REGISTERED:
        _REGISTERED.append(entry)
        try:
            formats()
        except PluginError:
            _REGISTERED.remove(entry)
            raise
    return chosen


def formats() -> dict[str, Format]:
    """Returns name -> format: the shipped ones, those of working plugins and registered ones.

    Raises: PluginError when two claim the same name or model type.
    """
    found: dict[str, Format] = {}
    owners: dict[str, str] = {}
    for chosen, origin in (*_shipped(), *_of_plugins([]), *_REGISTERED):
        owner = f"{chosen.name} ({origin})"
        types = [f"model_type {said!r}" for said in chosen.model_types]
        types += [f"_class_name {said!r}" for said in chosen.class_names]
        types += [f"the class {said!r}" for said in chosen.classes]
        for claim in (f"the format name {chosen.name!r}", *types):
            if claim in owners:
                raise PluginError(
                    f"Two formats claim {claim}: {owners[claim]} and {owner}; remove one of them."
                )
            owners[claim] = owner
        found[chosen.name] = chosen
    return found


def find_format(name: str, kind: str) -> Format:
    """Returns the format of a name, for models of a kind.

    Raises: UnknownName with the nearest name, or why its plugin is broken; ConfigError when the
    format holds other models.
    """
    known = formats()
    if name not in known:
        raise _unknown("format", name, list(known))
    if known[name].kind != kind:
        raise ConfigError(f"Format {name!r} holds {known[name].kind} models, not {kind}.")
    return known[name]


def public_format(config: Any) -> Format:
    """Returns the first format that can say what a typed config of ours is, transformers' before
    others; other engines convert from those.

    Raises: ConfigError with the reason of the format that is meant for such models.
    """
    reasons: list[str] = []
    fitting = [chosen for chosen in formats().values() if chosen.kind == config.zoo_kind]
    for chosen in sorted(fitting, key=lambda chosen: not chosen.name.startswith("transformers-")):
        try:
            chosen.write_config(config)
            return chosen
        except ConfigError as error:
            reasons.append(f"{chosen.name}: {error}")
    why = f" ({reasons[0]})" if len(reasons) == 1 else ""
    raise ConfigError(
        f"No public layout of {config.zoo_kind} models can say what this one is{why}; format zoo "
        "writes our own, and naming another tells what it cannot say."
    )


def format_for(config: Mapping[str, Any]) -> Format:
    """Returns the format that a public config.json asks for by `model_type`, `_class_name` or
    `architecture`.

    Raises: UnknownName, naming what it says and what can be read; PluginError when two read it.
    """
    known = formats()
    written = config.get("architectures")
    for chosen in known.values():
        if isinstance(written, list) and written and written[0] in chosen.classes:
            return chosen
    if "model_type" in config:
        said = config["model_type"]
        for chosen in known.values():
            if said in chosen.model_types:
                return chosen
        raise _unknown("model_type", said, [t for f in known.values() for t in f.model_types])
    if "_class_name" in config:
        said = config["_class_name"]
        for chosen in known.values():
            if said in chosen.class_names:
                return chosen
        raise _unknown("_class_name", said, [c for f in known.values() for c in f.class_names])
    if "architecture" in config:
        said = str(config["architecture"])
        fits = [chosen for chosen in known.values() if said in chosen.architectures] or [
            chosen  # only where nobody has spelt the name out: a plugin may read all the rest
            for chosen in known.values()
            if any(re.fullmatch(pattern, said) for pattern in chosen.architectures)
        ]
        if len(fits) > 1:
            names = " and ".join(chosen.name for chosen in fits)
            raise PluginError(f"Several formats read architecture {said!r}: {names}.")
        if not fits:
            raise _unknown("architecture", said, [])
        return fits[0]
    for chosen in known.values():
        if chosen.marker is not None and chosen.marker in config:
            return chosen
    raise UnknownName(
        "config.json names no model: it has none of 'zoo', 'model_type', '_class_name' and "
        "'architecture'."
    )


@cache
def _shipped() -> list[tuple[Format, str]]:
    found = []
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if not file.stem.startswith("_"):
            module = importlib.import_module(f"{__name__}.{file.stem}")
            found += [(chosen, "zoo") for chosen in _declared(module)]
    return found


def _of_plugins(broken: list[str]) -> Iterator[tuple[Format, str]]:
    """The formats of plugins that work; what is wrong with the others is added to `broken`."""
    from zoo.registry.plugins import plugins

    for plugin in plugins().values():
        try:
            module = plugin.formats()
        except PluginError as error:
            broken.append(str(error))
            continue
        for chosen in _declared(module) if module else ():
            yield chosen, plugin.distribution


def _declared(module: ModuleType) -> list[Format]:
    one = [module.FORMAT] if hasattr(module, "FORMAT") else []
    return [*getattr(module, "FORMATS", ()), *one]


def _unknown(key: str, said: Any, known: Collection[str]) -> UnknownName:
    """The error for a model that no format reads; a broken plugin might have."""
    from zoo.registry.suggest import hint

    broken: list[str] = []
    list(_of_plugins(broken))
    readable = f"Readable: {', '.join(sorted(known))}." if known else ""
    opening = "Unknown format" if key == "format" else f"No format reads {key}"
    return UnknownName(
        " ".join(
            [
                f"{opening} {str(said)[:60]!r}.{hint(str(said), known, readable)}",
                *broken,
            ]
        )
    )
