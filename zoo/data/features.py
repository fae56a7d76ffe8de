"""Features of captions on disk: what a frozen text model makes of each, so that a training never
runs it again. A file holds `features` (k m d), `features_mask` (k m), which tokens are there, and
`pooled` (k e) of models that give a vector for a whole text, for k captions in the order of the
codes' file; the metadata's `zoo.features` says what made them of what."""

# k captions, m tokens, d width

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import ConfigError

if TYPE_CHECKING:
    from zoo.data.schema import CodesConfig

__all__ = ["features_of"]

MARK = "zoo.features"
BATCH = 64


def features_of(captions: list[str], codes: Path, config: CodesConfig) -> dict[str, Tensor]:
    """Returns the features of captions, read once into the file beside `codes` and from there
    afterwards.

    Raises: ConfigError when the file holds what another text model, or another setting, made.
    """
    from zoo.weights.files import open_weights, save_weights

    path = codes.with_name(f"{codes.stem}.features.safetensors")
    about = {
        "reader": config.reader,
        "layer": config.reader_layer,
        "length": config.reader_length,
        "masks": config.reader_masks,
        "captions": hashlib.sha256("\0".join(captions).encode()).hexdigest()[:16],
    }
    if not path.is_file():
        save_weights(_read(captions, config), path, {MARK: json.dumps(about)})
    file = open_weights(path)
    said = json.loads(file.metadata.get(MARK, "{}"))
    for key, wanted in about.items():
        if said.get(key) != wanted:
            raise ConfigError(
                f"data.folder: {path} was made with another {key} ({said.get(key)} instead of "
                f"{wanted}); give another folder, or remove it."
            )
    return file.read()


@torch.inference_mode()
def _read(captions: list[str], config: CodesConfig) -> dict[str, Tensor]:
    from zoo.api.build import load

    assert config.reader is not None
    reader: Any = load(config.reader)
    if not hasattr(reader, "read"):
        raise ConfigError(f"data.reader: {config.reader!r} makes no features of texts.")
    length = config.reader_length
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(captions), BATCH):
        texts = captions[start : start + BATCH]
        tokens, mask = reader.tokenizer(texts, padding="right", length=length, pad_to=length)
        seen = mask if config.reader_masks else None
        features, pooled = reader.read(tokens, config.reader_layer, seen)
        made = {"features": features, "features_mask": mask, "pooled": pooled}
        for name, tensor in made.items():
            if tensor is not None and (name != "features_mask" or config.reader_masks):
                found.setdefault(name, []).append(tensor.clone())
    return {name: torch.cat(parts) for name, parts in found.items()}
