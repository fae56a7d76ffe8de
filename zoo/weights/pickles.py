"""Tensors out of a pickle, without running the code it may hold."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from zoo.errors import WeightsError
from zoo.weights.lazy import MemoryTensor
from zoo.weights.shard import broken

__all__ = ["read_pickle", "read_settings"]

# Objects that people meet in the wild, by the beginning of their class's name, and what to do.
WAYS_OUT = {
    "dall_e.": "use a state dict instead: the encoder's is zoo.load('flava-image-codebook', "
    "allow_pickle=True), the decoder has none that is public",
}
USUAL_WAY = "use a state dict instead, best as safetensors"


def read_pickle(path: Path, inside: str | None = None) -> dict[str, MemoryTensor]:
    """The tensors of a `.bin`/`.pt` file by `torch.load(weights_only=True)`, memory-mapped.

    `inside` names the key that holds them. Without it they are the file itself, or the only
    dictionary of tensors in it (`{"epoch": 3, "state_dict": {...}}`); of several none is guessed.

    Raises:
        WeightsError: code in the file, damage, no state dict or more than one.
    """
    found = _load(path)
    return {name: MemoryTensor(tensor) for name, tensor in _state(path, found, inside).items()}


def read_settings(path: Path) -> dict[str, Any]:
    """What a checkpoint says beside its tensors, as plain data: OpenAI's hold their model's
    dimensions.

    Raises: WeightsError as `read_pickle`.
    """
    found = _load(path)
    plain = {key: value for key, value in found.items() if _is_plain(value)} if found else {}
    return {key: value for key, value in plain.items() if isinstance(key, str)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _load(path: Path) -> Any:
    try:
        # Files from before torch 1.6 are no zip archive and cannot be mapped.
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        clue = _first_clue(error)
        way = next((w for start, w in WAYS_OUT.items() if clue.startswith(start)), USUAL_WAY)
        raise WeightsError(
            f"{path} is a whole pickled object, not tensors ({clue}), and would run its author's "
            f"code; {way}."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise broken(path, f"cannot be read ({_first_clue(error)})") from None


def _state(path: Path, found: Any, inside: str | None) -> dict[str, torch.Tensor]:
    choices = {}
    if isinstance(found, dict):
        choices = {key: _tensors(value) for key, value in found.items() if isinstance(key, str)}
        choices = {key: value for key, value in choices.items() if value}
    if inside is not None:
        if inside not in choices:
            raise WeightsError(
                f"{path} has no tensors in '{inside}'; try {', '.join(choices) or 'another file'}."
            )
        return choices[inside]
    if state := _tensors(found):
        return state
    if len(choices) == 1:
        return next(iter(choices.values()))
    if choices:
        raise WeightsError(
            f"{path} holds several sets of weights; choose one with inside=: {', '.join(choices)}."
        )
    raise WeightsError(f"{path} holds no state dict (names to tensors); use another file.")


def _tensors(value: Any) -> dict[str, torch.Tensor]:
    """`value` if it is a non-empty dictionary of names to tensors, otherwise nothing."""
    if not isinstance(value, dict) or not value:
        return {}
    good = all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())
    return dict(value) if good else {}


def _first_clue(error: BaseException) -> str:
    """What torch found, without its page of advice (to switch the protection off)."""
    text = str(error)
    marker = "Unsupported global: GLOBAL "
    if marker in text:
        return text.split(marker, 1)[1].split(" ", 1)[0]
    return (text.strip().splitlines() or [type(error).__name__])[0][:100]
