"""Prompt caches on disk: the keys and values of a prompt, to be read instead of computed.

One safetensors file: `layers.{i}.k`, `layers.{i}.v` (g n c) and `tokens` (n). Its metadata says
what
they were computed with; a file of other weights, another config or another precision is refused.
"""

# g key heads, n tokens, c channels of a head

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zoo.errors import WeightsError
from zoo.nn.cache import DynamicCache
from zoo.registry import to_mapping

__all__ = ["fingerprint", "load_prompt", "save_prompt"]

VERSION = "2"
SAMPLE = 1 << 20  # bytes of some of a model's tensors that its fingerprint covers


def precision(model: Any) -> str:
    """Returns what a model computes in: its numbers' type, and its layers' inference form."""
    forms = {type(m.form).__name__.lower() for m in model.modules() if getattr(m, "form", None)}
    kinds = {str(p.dtype).removeprefix("torch.") for p in model.parameters()}
    return " ".join([*sorted(kinds), *sorted(forms - {"packed"})])  # packed numbers are the same


def fingerprint(model: Any) -> dict[str, str]:
    """Returns what must agree for a prompt cache to be used: config, weights, precision."""
    digest, held = hashlib.sha256(), list(model.named_parameters())
    for name, tensor in held:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
    samples = [held[i][1] for i in (0, len(held) // 2, -1)]
    frozen = next((m.form for m in model.modules() if getattr(m, "form", None)), None)
    samples += [] if frozen is None else [frozen.dense()]
    for tensor in samples:
        flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(flat[:SAMPLE].numpy().tobytes())
        digest.update(flat[-SAMPLE:].numpy().tobytes())
    config = json.dumps(to_mapping(model.config, omit=("weights", "card")), sort_keys=True)
    return {
        "format": VERSION,
        "precision": precision(model),
        "config": hashlib.sha256(config.encode()).hexdigest(),
        "weights": digest.hexdigest(),
    }


def save_prompt(path: str | Path, model: Any, tokens: Sequence[int], cache: DynamicCache) -> None:
    """Writes the cache of one prompt (a batch of 1) by renaming a finished file."""
    from zoo.weights.files import save_weights

    length = min(cache.length, len(tokens))
    state = {"tokens": torch.tensor(list(tokens)[:length], dtype=torch.int32)}
    for layer, (k, v) in cache.buffers.items():
        assert k.shape[0] == 1, "a prompt cache holds one prompt"
        state[f"layers.{layer}.k"] = k[0, :, :length].contiguous()
        state[f"layers.{layer}.v"] = v[0, :, :length].contiguous()
    save_weights(state, Path(path), metadata=fingerprint(model))


def load_prompt(path: str | Path, model: Any, tokens: Sequence[int]) -> tuple[DynamicCache, int]:
    """Returns (cache, how many tokens of the prompt it covers): the longest common prefix, but for
    the last token, which must be computed to know what follows it.

    Raises: WeightsError when the file belongs to other weights, another config, another precision
    or another version.
    """
    from zoo.weights.files import open_weights

    file = open_weights(Path(path))
    wanted = fingerprint(model)
    reasons = {
        "format": "by another version",
        "precision": f"in {file.metadata.get('precision')}, and this model computes in "
        f"{wanted['precision']}",
        "config": "with another config",
        "weights": "with other weights",
    }
    for key, reason in reasons.items():
        if file.metadata.get(key) != wanted[key]:
            raise WeightsError(f"{path} was written {reason}; compute the prompt again.")
    kept = file["tokens"].read().tolist()
    same = 0
    for ours, theirs in zip(tokens, kept, strict=False):
        if ours != theirs:
            break
        same += 1
    same = max(min(same, len(tokens) - 1), 0)
    cache = DynamicCache()
    if same:
        for layer in range(sum(name.endswith(".k") for name in file)):
            k, v = (file[f"layers.{layer}.{part}"].read()[None, :, :same] for part in "kv")
            cache.append(layer, k, v)
    return cache, same
