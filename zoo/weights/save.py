"""Write safetensors so that the folder always holds the old weights or the new ones, whole.

Everything is first written and synced under temporary names; a full disk or a crash leaves the old
file as it was. Shards get names that are free; the index, replaced last, switches from old to new.
The bytes are those the safetensors library would write for the same tensors.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import WeightsError
from zoo.weights.lazy import ITEM_SIZES, LazyTensor, as_lazy, raw_bytes
from zoo.weights.shard import CODES

if TYPE_CHECKING:
    import torch

__all__ = ["INDEX", "TIED", "save_weights"]

INDEX = ".safetensors.index.json"
TIED = "zoo.tied"  # metadata key: JSON of the names that were stored under another name
ORDER = {dtype: position for position, dtype in enumerate(ITEM_SIZES)}


def save_weights(
    state: Mapping[str, torch.Tensor | LazyTensor],
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> list[Path]:
    """Write named tensors as safetensors and return the files written (an index comes last).

    A tensor that stands under several names (tied weights) is stored once, under its first name;
    the others are noted in the metadata, and `open_weights` gives them back. Tensors are written
    one at a time: a lazy one, or one on another device, is in memory only while it is written.

    Args:
        state: names to tensors, of any layout and on any device.
        path: `.../model.safetensors`, or a folder, in which that name is used.
        metadata: text to store with them.
        max_shard_bytes: above this the file becomes `model-00001-of-00002.safetensors`, ... and
            `model.safetensors.index.json`.

    Raises:
        WeightsError: a tensor that cannot be stored, or a disk that refused (the old files stay).
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        path = path / "model.safetensors"
    unique, tied = _without_ties(state)
    text = {"format": "pt", **(metadata or {})}
    if tied:
        text[TIED] = json.dumps(tied, sort_keys=True)
    if not all(isinstance(item, str) for pair in text.items() for item in pair):
        raise WeightsError(f"The metadata of {path} must be text; write numbers as text.")
    shards = _split(unique, max_shard_bytes)
    staged: list[tuple[Path, Path]] = []  # temporary name, final name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        names = [path.name] if len(shards) == 1 else _free_names(path, len(shards))
        for name, shard in zip(names, shards, strict=True):
            staged.append((_temporary(path.parent / name), path.parent / name))
            _write(staged[-1][0], shard, text)
        if len(shards) > 1:
            index = path.with_name(path.stem + INDEX)
            staged.append((_temporary(index), index))
            _write_index(staged[-1][0], names, shards)
        old = _old_files(path)
        for temporary, final in staged:
            os.replace(temporary, final)
        written = [final for _, final in staged]
        for stale in old:
            if stale not in written:
                stale.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise WeightsError(
            f"{path} could not be written ({error.strerror or error}); the old weights are intact."
        ) from error
    finally:
        for temporary, _ in staged:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    return written


def _without_ties(
    state: Mapping[str, torch.Tensor | LazyTensor],
) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """The tensors to store, and for each further name of one the name it is stored under."""
    unique: dict[str, LazyTensor] = {}
    tied: dict[str, str] = {}
    first: dict[object, str] = {}
    for name, value in state.items():
        if not isinstance(name, str) or not name or name == "__metadata__":
            raise WeightsError(f"{name!r} cannot name a stored tensor; use its name in the model.")
        identity = _identity(name, value)
        if identity in first:
            tied[name] = first[identity]
            continue
        first[identity] = name
        unique[name] = as_lazy(value)
        if unique[name].dtype not in ITEM_SIZES:
            raise WeightsError(
                f"'{name}' is {unique[name].dtype}, which cannot be stored; convert it first."
            )
    return unique, tied


def _identity(name: str, value: torch.Tensor | LazyTensor) -> object:
    """Equal for two values exactly if they are the same elements of the same memory."""
    if isinstance(value, LazyTensor):
        return id(value)
    if value.layout is not _strided():
        raise WeightsError(f"'{name}' is not a dense tensor ({value.layout}); convert it first.")
    if value.is_meta:
        raise WeightsError(f"'{name}' has no values (meta device); load the weights before saving.")
    if value.numel() == 0:
        return name
    return (value.device, value.data_ptr(), value.dtype, tuple(value.shape), value.stride())


def _strided() -> torch.layout:
    import torch

    return torch.strided


def _split(tensors: dict[str, LazyTensor], limit: int) -> list[dict[str, LazyTensor]]:
    """Fill shards in the order of `tensors`; one larger than the limit gets a shard alone."""
    shards: list[dict[str, LazyTensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _free_names(path: Path, number: int) -> list[str]:
    """Names for the shards that no file in the folder has, so that the old shards stay whole."""
    for generation in count(1):
        stem = path.stem if generation == 1 else f"{path.stem}-{generation}"
        names = [f"{stem}-{i:05d}-of-{number:05d}.safetensors" for i in range(1, number + 1)]
        if not any((path.parent / name).exists() for name in names):
            return names
    raise AssertionError("unreachable")


def _old_files(path: Path) -> list[Path]:
    """What a former save under this name left: the single file, or the index and its shards."""
    index = path.with_name(path.stem + INDEX)
    old = [path, index]
    with suppress(OSError, ValueError, AttributeError, TypeError):
        names = set(json.loads(index.read_text())["weight_map"].values())
        # only names of the form given here: a foreign index must not choose what is deleted
        ours = [n for n in names if n.startswith(f"{path.stem}-") and n.endswith(".safetensors")]
        old += [path.parent / name for name in ours if "/" not in name]
    return old


def _temporary(final: Path) -> Path:
    return final.with_name(f".{final.name}.{os.getpid()}.tmp")


def _header(tensors: Sequence[tuple[str, LazyTensor]], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for name, tensor in tensors:
        header[name] = {
            "dtype": CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, position + tensor.nbytes],
        }
        position += tensor.nbytes
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # so that the values begin aligned
    return struct.pack("<Q", len(raw)) + raw


def _write(path: Path, shard: dict[str, LazyTensor], metadata: Mapping[str, str]) -> None:
    ordered = sorted(shard.items(), key=lambda item: (ORDER[item[1].dtype], item[0]))
    with open(path, "wb") as file:
        file.write(_header(ordered, metadata))
        for _, tensor in ordered:
            file.write(raw_bytes(tensor.read()))
        _sync(file)


def _write_index(path: Path, names: list[str], shards: list[dict[str, LazyTensor]]) -> None:
    weight_map = {tensor: name for name, shard in zip(names, shards) for tensor in shard}
    size = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    content = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        _sync(file)


def _sync(file: object) -> None:
    file.flush()  # type: ignore[attr-defined]
    os.fsync(file.fileno())  # type: ignore[attr-defined]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
