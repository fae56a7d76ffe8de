"""zoo.create, zoo.load, zoo.save: from a name to a model in memory, and to a folder."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from zoo.api.describe import node_config
from zoo.api.stored import find_stored, over_bases, read_base_files
from zoo.errors import ConfigError, UnknownName
from zoo.registry import parse_name
from zoo.registry.suggest import hint

__all__ = ["create", "load", "merge", "save"]


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
    from zoo.models.base import as_device, as_dtype, build_empty, initialise

    parsed = parse_name(name)
    if parsed.scheme:
        raise UnknownName(f"{name!r} has weights of its own: zoo.load reads it.")
    model = build_empty(node_config(parsed, overrides, keys))
    if str(device) == "meta":
        return model.to(as_dtype(dtype))
    where = None if device is None else as_device(device)
    return initialise(model, seed).to(device=where, dtype=as_dtype(dtype))


def load(
    name: str,
    *overrides: str | Mapping[str, Any],
    device: Any = None,
    dtype: Any = None,
    partial: bool = False,
    allow_pickle: bool = False,
    copy: bool = False,
    seed: int | None = 0,
    compile: bool = False,
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
        compile: `generate` and `stream` of a decoder run as one captured CUDA graph on a GPU, and
            through torch.compile elsewhere: one graph whatever the prompt's length.
        copy: read the weights into memory instead of mapping the file.
    Raises: UnknownName, ConfigError, WeightsError, HubError.
    """
    from zoo.models.base import as_device, precision, seeded
    from zoo.nn.forms import freeze
    from zoo.weights.load import load_into

    tensors, form = precision(dtype, device, compile)
    device = None if device is None else as_device(device)
    found = find_stored(parse_name(name), overrides, keys, allow_pickle)
    model = found.empty()
    with seeded(seed):  # what is new is the same for the same seed
        model.load_report = load_into(
            model,
            over_bases(model, found.weights, found.config, allow_pickle),
            partial=partial,
            fresh=found.fresh(model),
            dtype=tensors or getattr(model, "load_dtype", None),
            device=device,
            copy=copy,
        )
    if hasattr(model, "read_files"):  # a tokenizer's, beside the weights
        model.read_files(found.folder)
    read_base_files(model, found.config.bases, allow_pickle)
    if compile and not hasattr(model, "fixed_scores"):
        raise ConfigError(f"{name!r} is no decoder of text, and compile serves those alone.")
    model.eval().compiled = compile
    return model if form is None else freeze(model, form)


def merge(model: Any) -> Any:
    """Puts what a tuning (LoRA) added to a model into its weights, in place, and returns it: the
    same outputs, plain layers, stored as any other model."""
    from zoo.models.tuning import merge

    return merge(model)


def save(
    model: Any, folder: str | Path, format: str = "zoo", only: Sequence[str] | None = None
) -> Path:
    """Writes a model to a folder that `zoo.load("dir:…")` reads; `format` names a public layout
    instead of ours, or is "public" for the one that fits.

    A public layout (for example "transformers-vit" or "timm-vit") opens in the library it comes
    from; what a tuning added is merged into its weights. `only` are patterns of the tensors to
    store, `["adapter.*"]`; the config's `bases` say where the others are.
    """
    from zoo.models.base import save as save_native
    from zoo.models.base import write_text
    from zoo.models.tuning import merged_state
    from zoo.nn.forms import refuse_inexact

    if format == "zoo":
        return save_native(model, folder, only=None if only is None else _chosen(model, only))
    if only is not None:
        raise ConfigError(f"only: the layout {format!r} holds whole models.")
    from zoo.weights.bases import covered
    from zoo.weights.files import save_weights
    from zoo.weights.formats import find_format, public_format

    refuse_inexact(model)
    config, weights = merged_state(model)
    own = {field.name for field in fields(config)}  # a composite's text has them, not itself
    if hasattr(model, "known_special") and "special" in own:  # which engines read from config.json
        config = replace(config, special=model.known_special())
    known = format != "public"
    chosen = find_format(format, config.zoo_kind) if known else public_format(config)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    public = chosen.write_config(config)
    table = chosen.weight_map(config)
    elsewhere = [n for n in weights if covered(n, config.bases) and not table.origin(n)]
    for name in elsewhere:  # a part that the layout does not hold lies with the model it is from
        del weights[name]
    state = table.export(weights)
    for prefix, file in (chosen.parts or {"": chosen.file}).items():
        before = f"{prefix}." if prefix else ""
        part = {n.removeprefix(before): t for n, t in state.items() if n.startswith(before)}
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        save_weights(part, folder / file, metadata={"format": "pt"})
    if chosen.generation in public and hasattr(model, "writing_keys"):
        public[chosen.generation] |= model.writing_keys()
    for name in chosen.companions:
        if name in public:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_text(folder / name, json.dumps(public.pop(name), indent=2) + "\n")
    write_text(folder / chosen.config, json.dumps(public, indent=2) + "\n")
    if hasattr(model, "write_files"):
        texts = folder / chosen.texts
        texts.mkdir(exist_ok=True)
        model.write_files(texts)
    return folder


def _chosen(model: Any, patterns: Sequence[str]) -> list[str]:
    names = list(model.state_dict())
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ConfigError(f"only: no tensor matches {pattern!r}.{hint(pattern, names)}")
    return [name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns)]
