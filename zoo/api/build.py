"""zoo.create, zoo.load, zoo.save: from a name to a model in memory, and to a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.api.describe import node_config
from zoo.errors import UnknownName, WeightsError
from zoo.registry import Name, parse_name, resolve, to_mapping
from zoo.registry.overrides import apply_overrides

__all__ = ["create", "load", "save"]


def create(
    name: str,
    *overrides: str | Mapping[str, Any],
    seed: int | None = None,
    device: Any = None,
    dtype: Any = None,
    **keys: Any,
) -> Any:
    """Returns a model with new weights.

    Args:
        name: a name of ours, with overrides as for `zoo.config`.
        seed: the same seed gives the same weights; torch's global generator is left alone then.
        device: `"cpu"`, `"cuda"`, … or `"meta"` for shapes without memory.
        dtype: `"fp32"` (default), `"bf16"`, `"fp16"`.
    Raises: UnknownName, ConfigError.
    """
    from zoo.models.base import as_dtype, build_empty, initialise

    parsed = parse_name(name)
    if parsed.scheme:
        raise UnknownName(f"{name!r} has weights of its own: zoo.load reads it.")
    model = build_empty(node_config(parsed, overrides, keys))
    if str(device) == "meta":
        return model.to(as_dtype(dtype))
    return initialise(model, seed).to(device=device, dtype=as_dtype(dtype))


def load(
    name: str,
    *overrides: str | Mapping[str, Any],
    device: Any = None,
    dtype: Any = None,
    partial: bool = False,
    allow_pickle: bool = False,
    copy: bool = False,
    seed: int | None = 0,
    **keys: Any,
) -> Any:
    """Returns a model with weights, ready to use (in eval mode).

    Args:
        name: `"vit-digits"`, `"vit-base-16.augreg"`, `"hf:org/repo@revision"`, `"dir:path"`.
        overrides: parts to swap; what then has no place or no weights is an error, unless
            `partial`.
        dtype: `"fp32"`, `"bf16"`, on a GPU `"fp16"`; on a CPU `"int8"` (fastest) or
            `"int8-weight"` (nearer to bf16, half its memory); None is what is stored, or what the
            model asks for (`load_dtype`). On a CPU the linear layers then take their inference
            form (`zoo.nn.forms`), which `.train()` undoes.
        partial: load what fits, give the rest new weights (from `seed`); `model.load_report`
            lists both.
        allow_pickle: also read `.bin` and `.pt` files, with torch's restricted unpickler.
        copy: read the weights into memory instead of mapping the file.
    Raises: UnknownName, ConfigError, WeightsError, HubError.
    """
    from zoo.models.base import build_empty, precision, seeded
    from zoo.nn.forms import freeze
    from zoo.weights.files import open_weights
    from zoo.weights.load import load_into

    tensors, form = precision(dtype, device)
    parsed = parse_name(name)
    if parsed.scheme:
        typed, source = foreign_config(parsed, overrides, keys, allow_pickle)
        folder = Path(source).parent
        path: Path = folder
        format_name = _format_of(folder)
    else:
        typed = node_config(parsed, overrides, keys)
        path, format_name = _weights_of(parsed, typed)
    file = open_weights(path, allow_pickle=allow_pickle)
    weights: Any = file
    if format_name != "zoo":
        from zoo.weights.formats import find_format

        weights = find_format(format_name, typed.zoo_kind).weight_map(typed).load(file)
    model = build_empty(typed)
    with seeded(seed if partial else None):  # what is new is the same for the same seed
        model.load_report = load_into(
            model,
            weights,
            partial=partial,
            dtype=tensors or getattr(model, "load_dtype", None),
            device=device,
            copy=copy,
        )
    if hasattr(model, "read_files"):  # a tokenizer's, beside the weights
        model.read_files(path if Path(path).is_dir() else Path(path).parent)
    return freeze(model.eval(), form)


def save(model: Any, folder: str | Path, format: str = "zoo") -> Path:
    """Writes a model to a folder that `zoo.load("dir:…")` reads; `format` names a public layout
    instead of ours.

    A public layout (for example "transformers-vit" or "timm-vit") opens in the library it comes
    from.
    """
    from zoo.models.base import save as save_native
    from zoo.models.base import write_text

    if format == "zoo":
        return save_native(model, folder)
    from zoo.nn.forms import refuse_inexact
    from zoo.weights.files import save_weights
    from zoo.weights.formats import find_format

    refuse_inexact(model)
    chosen = find_format(format, model.config.zoo_kind)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    public = chosen.write_config(model.config)
    state = chosen.weight_map(model.config).export(model.state_dict())
    save_weights(state, folder / chosen.file, metadata={"format": "pt"})
    for name in chosen.companions:
        if name in public:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_text(folder / name, json.dumps(public.pop(name), indent=2) + "\n")
    write_text(folder / "config.json", json.dumps(public, indent=2) + "\n")
    if hasattr(model, "write_files"):
        model.write_files(folder)
    return folder


# -- where weights lie -----------------------------------------------------------------------------


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
    if not file.is_file():
        raise UnknownName(f"{folder} holds no config.json, so nothing says what model it is.")
    content = read_hub_config(file, foreign=True)
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


def _format_of(folder: Path) -> str:
    from zoo.hub.config import read_hub_config
    from zoo.weights.formats import format_for

    content = read_hub_config(folder / "config.json", foreign=True)
    return "zoo" if "zoo" in content else format_for(content).name


def _weight_names(folder: Path, allow_pickle: bool) -> frozenset[str]:
    """Returns the names of the tensors in a folder's weights files, for configs that cannot tell
    alone."""
    from zoo.weights.files import open_weights

    try:
        return frozenset(open_weights(folder, allow_pickle=allow_pickle))
    except WeightsError:
        return frozenset()


def _weights_of(parsed: Name, typed: Any) -> tuple[Path, str]:
    """Returns (file or folder, format) of a node's weights tag, pulled from the hub when they do
    not ship."""
    if not typed.weights:
        raise WeightsError(
            f"{parsed.name!r} has no weights; zoo.create({parsed.name!r}) gives it new ones."
        )
    tag = typed.weights[parsed.tag] if parsed.tag else next(iter(typed.weights.values()))
    if tag.folder is not None:
        path = Path(__file__).parent.parent / "assets" / tag.folder
        if not path.is_dir():
            raise WeightsError(
                f"The shipped weights {tag.folder!r} are missing; install zoo again."
            )
        return path, tag.format
    from zoo.hub.client import pull

    return pull(tag.repo, tag.revision, allow=tag.patterns()) / tag.file, tag.format
