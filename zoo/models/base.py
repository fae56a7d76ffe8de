"""From a config to a model and back: new weights, weights from files, the stored folder layout."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.errors import ConfigError, WeightsError, ZooError
from zoo.models.tuning import attach_tuning
from zoo.registry import build, resolve, to_mapping

__all__ = [
    "FORMAT_VERSION",
    "as_device",
    "as_dtype",
    "build_empty",
    "initialise",
    "precision",
    "read_config",
    "save",
    "seeded",
]

FORMAT_VERSION = 1  # of config.json in a stored folder
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def as_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Returns the torch dtype of `fp32`, `bf16`, `fp16` (or torch's own names); raises
    ConfigError for others."""
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    names = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp64": "float64"}
    found = getattr(torch, names.get(dtype, dtype), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ConfigError(
            f"Unknown dtype {dtype!r}; use fp32, bf16, fp16, or on a CPU int8 or int8-weight."
        )
    return found


def precision(
    dtype: str | torch.dtype | None, device: Any = None, compile: bool = False
) -> tuple[Any, str | None]:
    """Returns (torch dtype of the tensors or None for what is stored, inference form of the linear
    layers or None) of a dtype as `zoo.load` takes it.

    Raises: ConfigError for fp16 on a CPU, int8 elsewhere or compiled, with what to take instead.
    """
    on_cpu = str(device or "cpu").partition(":")[0] == "cpu"
    if dtype in ("int8", "int8-weight"):
        if not on_cpu:
            raise ConfigError(f"dtype {dtype} is for CPUs; on {device} take bf16.")
        if compile:
            raise ConfigError(
                f"dtype {dtype} has kernels that are not compiled; leave compile out."
            )
        return (torch.float32 if dtype == "int8" else torch.bfloat16), str(dtype)
    found = as_dtype(dtype)
    if found == torch.float16 and on_cpu:
        raise ConfigError("fp16 is slower than fp32 on a CPU; take dtype bf16 or int8.")
    return found, None if compile else "packed"


def as_device(device: Any) -> torch.device:
    """Returns the device of a name; raises ConfigError for one that cannot be used here."""
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"device: {str(device)!r} cannot be used here ({reason}).") from None
    return found


def build_empty(config: Any) -> nn.Module:
    """Returns the model of a config on the meta device: shapes without memory."""
    with torch.device("meta"):
        return attach_tuning(build(config))


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Runs a block under a seed of its own and leaves torch's generator as it was; None: as is."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def initialise(model: nn.Module, seed: int | None = None) -> nn.Module:
    """Fills a model with new weights, the same for the same seed; leaves torch's global
    generator as it was."""
    if any(p.is_meta for p in model.parameters()):
        model.to_empty(device="cpu")
    with seeded(seed), torch.no_grad():
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
    return model


def stored_mapping(config: Any) -> dict[str, Any]:
    """Returns what config.json holds: the resolved config without weights tags, and who wrote it.
    What is stored is no difference any more."""
    from zoo import __version__

    return {
        "zoo": {"format": FORMAT_VERSION, "version": __version__},
        "group": config.zoo_group,
        "config": to_mapping(config, omit=("weights", "deltas")),
    }


def read_config(folder: Path, content: dict[str, Any]) -> Any:
    """Returns the typed config of a stored folder's config.json; raises ConfigError for a newer
    format."""
    header = content.get("zoo")
    if not isinstance(header, dict) or not isinstance(content.get("config"), dict):
        raise ConfigError(f"{folder / CONFIG} lacks the keys 'zoo' and 'config' of a stored model.")
    if header.get("format") != FORMAT_VERSION:
        raise ConfigError(
            f"{folder / CONFIG} has format {header.get('format')!r} "
            f"(written by zoo {header.get('version')}); "
            f"this zoo reads format {FORMAT_VERSION}, so upgrade it."
        )
    if content.get("group", "model") != "model":
        raise ConfigError(f"{folder / CONFIG} describes a {content['group']!r}, not a model.")
    try:
        return resolve("model", content["config"], stored=True)
    except ZooError as error:
        raise type(error)(f"{folder / CONFIG}: {error}") from None


def save(
    model: nn.Module,
    folder: str | Path,
    card: str | None = None,
    only: Collection[str] | None = None,
) -> Path:
    """Writes config.json and model.safetensors (and README.md when a card is given or none is
    there) to a folder.

    What is already in the folder is replaced file by file, each by renaming a finished one.
    `only` names the tensors to store; the config's `bases` must hold the others (WeightsError).
    """
    from zoo.nn.forms import refuse_inexact
    from zoo.weights.bases import subset
    from zoo.weights.files import save_weights

    refuse_inexact(model)
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "zoo_kind"):
        raise WeightsError(f"{type(model).__name__} carries no zoo config, so it cannot be stored.")
    state = model.state_dict()
    if only is not None:
        state = subset(state, only, config.bases)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(state, folder / WEIGHTS)
    write_text(folder / CONFIG, json.dumps(stored_mapping(config), indent=2) + "\n")
    write_files: Any = getattr(model, "write_files", None)
    if write_files is not None:
        write_files(folder)
    if card is not None or not (folder / "README.md").exists():
        from zoo.models.card import model_card

        write_text(folder / "README.md", card or model_card(config))
    return folder


def write_text(path: Path, text: str) -> None:
    """Writes a file by renaming a finished one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
