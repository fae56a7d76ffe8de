"""Models as they lie on disk or on a hub: which config, which weights, which bases under them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.api.describe import node_config
from zoo.errors import ConfigError, UnknownName, WeightsError
from zoo.registry import Name, parse_name, resolve, to_mapping
from zoo.registry.overrides import apply_overrides
from zoo.weights.bases import WHOLE

__all__ = [
    "Stored",
    "find_stored",
    "foreign_config",
    "over_bases",
    "read_base_files",
    "stored_weights",
    "tag_weights",
]


@dataclass(frozen=True)
class Stored:
    """A model as it lies on disk: its config, its own weights by the model's names, its folder."""

    config: Any
    weights: Any
    folder: Path
    has_tuning: bool  # whether the weights hold what the config's tuning adds
    foreign: bool  # whether its config is a stranger's, as it is

    def empty(self) -> Any:
        """Returns the model on the meta device; raises WeightsError for a stranger's config that
        asks for absurdly more than its weights are."""
        from zoo.models.base import build_empty
        from zoo.models.bounds import bounded

        if not self.foreign:
            return build_empty(self.config)
        own = None if self.config.bases else self.weights
        with bounded(own, str(self.folder / "config.json")):
            return build_empty(self.config)

    def fresh(self, model: Any) -> frozenset[str]:
        """Returns the names that may be new: what a tuning adds to weights that had none."""
        from zoo.models.tuning import tuning_names

        return frozenset() if self.has_tuning else tuning_names(model)


def find_stored(
    parsed: Name,
    overrides: Any = (),
    keys: Mapping[str, Any] | None = None,
    allow_pickle: bool = False,
) -> Stored:
    """Returns what a name leads to, pulled from a hub where needed; no tensor is read yet."""
    from zoo.models.tuning import is_tuned
    from zoo.weights.files import open_weights
    from zoo.weights.formats import find_format

    def config_with(overrides: Any, keys: Mapping[str, Any]) -> Any:
        if parsed.scheme:
            return foreign_config(parsed, overrides, keys, allow_pickle)[0]
        return node_config(parsed, overrides, keys)

    typed = config_with(overrides, keys or {})
    weights: Any
    if parsed.scheme:
        folder = _folder_of(parsed)
        format_name = _format_of(folder, allow_pickle)
        if format_name == "zoo":
            weights = open_weights(folder, allow_pickle=allow_pickle)
        else:
            chosen = find_format(format_name, typed.zoo_kind)
            weights = chosen.weight_map(typed).load(_open(folder, chosen.parts, allow_pickle))
            folder = folder / chosen.texts
    else:
        _warn_of_licence(parsed, typed)
        weights, folder = tag_weights(parsed, typed, allow_pickle)
        folder = _folder_of_texts(typed) or folder
    if parsed.scheme == "hf":
        _refuse_local_bases(parsed.name, typed, config_with((), {}))
    tuned = is_tuned(typed) and is_tuned(config_with((), {}))
    foreign = bool(parsed.scheme) and not overrides and not keys
    return Stored(typed, weights, folder, tuned, foreign)


# Parts of a licence's name that say that not everyone may do everything with the weights.
_RESTRICTED = {"nc", "noncommercial", "openrail", "openrail++", "rail", "research"}


def _warn_of_licence(parsed: Name, typed: Any) -> None:
    """Warns of weights whose licence restricts what they may be used for."""
    tag = typed.weights.get(parsed.tag) if parsed.tag else next(iter(typed.weights.values()), None)
    licence = (tag and tag.license) or typed.card.license
    if licence and _RESTRICTED & set(licence.lower().replace("_", "-").split("-")):
        warnings.warn(
            f"The weights of {parsed.name!r} are under {licence}, which restricts what they may be "
            "used for; read it before you use or pass them on.",
            stacklevel=4,
        )


def stored_weights(name: str, allow_pickle: bool = False) -> Mapping[str, Any]:
    """Returns all tensors of a model by name, under its own names; none is read yet."""
    found = find_stored(parse_name(name), allow_pickle=allow_pickle)
    model = found.empty() if found.config.bases else None
    return over_bases(model, found.weights, found.config, allow_pickle)


def over_bases(
    model: Any, own: Mapping[str, Any], config: Any, allow_pickle: bool = False
) -> Mapping[str, Any]:
    """Returns tensors by the model's names: `own`, added to those that the config's `deltas` name,
    then those of its `bases`."""
    from zoo.weights.bases import layered, summed
    from zoo.weights.fit import module_slots

    def weights(name: str) -> Mapping[str, Any]:
        return stored_weights(name, allow_pickle)

    try:
        if config.deltas:
            own = summed(own, config.deltas, weights)
        if not config.bases:
            return own
        names = [name for slot in module_slots(model).values() for name in slot.names]
        return layered(own, config.bases, names, weights)
    except RecursionError:
        raise ConfigError("bases: the models name each other as bases.") from None


def read_base_files(
    model: Any, bases: Mapping[str, str | None], allow_pickle: bool = False
) -> None:
    """Tells the parts that bases fill, and that read texts, where their tokenizers' files lie."""
    for module, base in bases.items():
        part: Any = None if module == WHOLE else model.get_submodule(module)
        if base and getattr(part, "folder", True) is None:  # it reads text, and has none of its own
            part.read_files(find_stored(parse_name(base), allow_pickle=allow_pickle).folder)


def _refuse_local_bases(name: str, asked: Any, pushed: Any) -> None:
    """Refuses folders that a hub's config names; those that the caller names are his own."""
    for module, base in pushed.bases.items():
        if base.startswith("dir:") and asked.bases.get(module) == base:
            raise ConfigError(
                f"bases: hf:{name} grew on {base}, a folder of whoever pushed it; say where yours "
                f"is by bases.{module}=dir:…, or ask for a copy whose bases are on a hub."
            )


def foreign_config(
    parsed: Name,
    overrides: Any = (),
    keys: Mapping[str, Any] | None = None,
    allow_pickle: bool = False,
) -> tuple[Any, str]:
    """Returns (typed config, config.json) of `hf:…` or `dir:…`: our layout, or a public one that
    a format reads."""
    from zoo.hub.config import read_hub_config

    folder = _folder_of(parsed)
    file = folder / "config.json"
    content = _public_config(folder, allow_pickle)
    if "zoo" in content:
        from zoo.models.base import read_config

        typed = read_config(folder, read_hub_config(file))
    else:
        from zoo.weights.formats import format_for

        chosen = format_for(content)
        for name in chosen.companions:
            if (folder / name).is_file():
                content[name] = read_hub_config(folder / name, foreign=True, lists=True)
        names = _weight_names(folder, allow_pickle)
        typed = resolve("model", {"kind": chosen.kind, **chosen.read_config(content, names)})
    if overrides or keys:
        mapping = to_mapping(typed)
        for override in overrides:
            mapping = apply_overrides(
                mapping, [override] if isinstance(override, str) else override
            )
        typed = resolve("model", apply_overrides(mapping, keys or {}))
    return typed, str(file)


def _folder_of(parsed: Name) -> Path:
    if parsed.scheme == "hf":
        from zoo.hub.client import pull

        return pull(parsed.name, parsed.revision)
    folder = Path(parsed.name).expanduser()
    if not folder.is_dir():
        raise UnknownName(f"dir:{parsed.name}: there is no such folder.")
    return (
        folder / "model"
        if not (folder / "config.json").is_file() and (folder / "model").is_dir()
        else folder
    )


def _public_config(folder: Path, allow_pickle: bool) -> dict[str, Any]:
    """Returns the config that lies in a folder, or that its only checkpoint holds within itself."""
    from zoo.hub.config import read_hub_config

    for file in (folder / "config.json", folder / "model_index.json"):  # a model, a pipeline
        if file.is_file():
            return read_hub_config(file, foreign=True)
    pickles = [path for path in folder.iterdir() if path.suffix in (".pt", ".pth", ".ckpt")]
    if len(pickles) == 1 and allow_pickle:
        from zoo.weights.pickles import read_settings

        return read_settings(pickles[0])
    hint = f" {pickles[0].name} may, with allow_pickle=True." if len(pickles) == 1 else ""
    raise UnknownName(f"{folder} holds no config.json, so nothing says what model it is.{hint}")


def _format_of(folder: Path, allow_pickle: bool) -> str:
    from zoo.weights.formats import format_for

    content = _public_config(folder, allow_pickle)
    return "zoo" if "zoo" in content else format_for(content).name


def _weight_names(folder: Path, allow_pickle: bool) -> frozenset[str]:
    """Returns the names of the tensors in a folder's weights files, for configs that cannot tell
    alone."""
    from zoo.weights.files import open_weights

    try:
        return frozenset(open_weights(folder, allow_pickle=allow_pickle))
    except WeightsError:
        return frozenset()


def tag_weights(parsed: Name, typed: Any, allow_pickle: bool = False) -> tuple[Any, Path]:
    """Returns the tensors of a node's weights tag by the model's names, and the folder that they
    lie in, pulled from the hub when they do not ship."""
    from zoo.weights.files import open_weights
    from zoo.weights.formats import find_format

    if not typed.weights:
        raise WeightsError(
            f"{parsed.name!r} has no weights; zoo.create({parsed.name!r}) gives it new ones."
        )
    tag = typed.weights[parsed.tag] if parsed.tag else next(iter(typed.weights.values()))
    folder = _folder_of_tag(tag)
    weights: Any
    if tag.files:
        weights = _open(folder, tag.files, allow_pickle)
    else:
        path = folder if tag.folder is not None else folder / tag.file
        weights = open_weights(path, allow_pickle=allow_pickle)
        folder = path if path.is_dir() else path.parent
    if tag.format != "zoo":
        chosen = find_format(tag.format, typed.zoo_kind)
        weights, folder = chosen.weight_map(typed).load(weights), folder / chosen.texts
    return weights, folder


def _open(folder: Path, files: Mapping[str, str], allow_pickle: bool) -> Mapping[str, Any]:
    """Returns the tensors of a folder; of a model in several files each one's names under a prefix
    of its own."""
    from zoo.weights.files import open_weights

    if not files:
        return open_weights(folder, allow_pickle=allow_pickle)
    found = {prefix: open_weights(folder / file, allow_pickle) for prefix, file in files.items()}
    return {f"{prefix}.{name}": tensor for prefix, f in found.items() for name, tensor in f.items()}


def _folder_of_texts(typed: Any) -> Path | None:
    """Returns where the tokenizer's files are, when they do not lie beside the weights."""
    tokenizer: Any = getattr(typed, "tokenizer", None)
    if not getattr(tokenizer, "apart", False):
        return None
    from zoo.hub.client import pull
    from zoo.tokenizers.text.schema import FILES

    return pull(tokenizer.repo, tokenizer.revision, allow=FILES)


def _folder_of_tag(tag: Any) -> Path:
    if tag.folder is None:
        from zoo.hub.client import pull

        return pull(tag.repo, tag.revision, allow=tag.patterns())
    path = Path(__file__).parent.parent / "assets" / tag.folder
    if not path.is_dir():
        raise WeightsError(f"The shipped weights {tag.folder!r} are missing; install zoo again.")
    return path
