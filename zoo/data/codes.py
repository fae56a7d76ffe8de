"""Codes on disk: what a visual tokenizer makes of a data set, so that a prior never runs it again.

    zoo codes encode fsq-digits colour-digits codes/          # or let `data=codes` do it
    zoo train experiment=… data=codes data.source=colour-digits data.tokenizer=fsq-digits

A folder holds `train.safetensors` and `test.safetensors`. In a file, `codes` (n *grid) is of the
smallest whole type that holds the codebook; every other tensor is one of the source's, with n
first (`digits`, `labels`, …); strings are kept once, in the metadata (`strings`: key -> list), and
a tensor `strings.KEY` (n) says which each sample has. The metadata's `zoo.codes` says what made
it: tokenizer, fingerprint of its weights, codebook size, source and passes. With `data.reader`,
`train.features.safetensors` beside it holds what a frozen text model makes of each caption.
"""

# n samples, b batch

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.data.base import Batch, Data, Dataset
from zoo.data.draw import seeds_of
from zoo.data.features import features_of
from zoo.errors import ConfigError, DataError, WeightsError
from zoo.registry import build, to_mapping

if TYPE_CHECKING:
    from zoo.data.schema import CodesConfig

__all__ = ["CodesData", "CodesFile", "encode_split", "fingerprint", "write_codes"]

VERSION = 1
MARK, STRINGS, CAPTIONS = "zoo.codes", "strings", "captions"


class CodesFile:
    """A file of codes as a data set."""

    def __init__(self, path: str | Path) -> None:
        """Raises DataError for what is no such file."""
        from zoo.weights.files import open_weights

        self.path = Path(path)
        try:
            file = open_weights(self.path)
        except WeightsError as error:
            raise DataError(str(error)) from None
        about = json.loads(file.metadata.get(MARK, "{}"))
        if about.get("version") != VERSION or "codes" not in file:
            raise DataError(
                f"{path} holds no codes of version {VERSION}; zoo codes encode writes them."
            )
        self.about: dict[str, Any] = about
        self.strings: dict[str, list[str]] = json.loads(file.metadata.get(STRINGS, "{}"))
        self.tensors = {name: lazy.view() for name, lazy in file.items()}  # type: ignore[attr-defined]
        self.codebook_size: int = about["codebook_size"]
        self.grid: tuple[int, ...] = tuple(self.tensors["codes"].shape[1:])
        self.features: dict[str, Tensor] = {}  # of each caption that there is

    def __len__(self) -> int:
        return len(self.tensors["codes"])

    def batch(self, indices: Sequence[int], seeds: Tensor | None = None) -> Batch:
        """Returns `codes` (b *grid) int64 and whatever else the source gave, strings as lists."""
        rows = torch.as_tensor(indices)
        found: Batch = {}
        for name, tensor in self.tensors.items():
            values = tensor[rows]
            if name.startswith(f"{STRINGS}."):
                key = name.removeprefix(f"{STRINGS}.")
                found[key] = [self.strings[key][index] for index in values.tolist()]
                if key == CAPTIONS:
                    told = values.long()
                    found |= {name: table[told] for name, table in self.features.items()}
            else:
                found[name] = values.long() if name == "codes" else values
        return found


class CodesData:
    """`data=codes`: another data set as codes, encoded at the first use and read afterwards."""

    labels: list[str] = []

    def __init__(self, config: CodesConfig) -> None:
        self.config = config
        self.source: Data = build(config.source)
        self.labels = self.source.labels
        for name in ("judge", "distance", "turn"):  # of decoded pixels; they never see codes
            if hasattr(self.source, name):
                setattr(self, name, getattr(self.source, name))

    def split(self, name: str, model: Any = None) -> CodesFile:
        """Returns the codes of `"train"` or `"test"`.

        Raises: ConfigError when the folder holds codes of something else, or when the model counts
        another number of codes.
        """
        path = Path(self.config.folder or "codes") / f"{name}.safetensors"
        if not path.is_file():
            passes = self.config.passes if name == "train" else 1
            encode_split(self.source, name, self.tokenizer, path, self._about(), passes=passes)
        found = CodesFile(path)
        self._check(found, model)
        if self.config.reader is not None:
            if CAPTIONS not in found.strings:
                raise ConfigError("data.reader: this data has no captions that it could read.")
            found.features = features_of(found.strings[CAPTIONS], path, self.config)
        return found

    def _check(self, found: CodesFile, model: Any) -> None:
        about = {**self._about(), "weights": fingerprint(self.tokenizer)}
        for key, wanted in about.items():
            if found.about.get(key) != wanted:
                raise ConfigError(
                    f"data.folder: {found.path} was made with another {key} "
                    f"({_short(found.about.get(key))} instead of {_short(wanted)}); give another "
                    "folder, or remove it."
                )
        counted = getattr(getattr(model, "config", None), "codebook", None)
        if counted is not None and counted != found.codebook_size:
            raise ConfigError(
                f"data.tokenizer: {self.config.tokenizer!r} has {found.codebook_size} codes, and "
                f"the model counts {counted}."
            )

    @cached_property
    def tokenizer(self) -> Any:
        """The visual tokenizer, with its weights."""
        from zoo.api.build import load

        return load(self.config.tokenizer)

    def _about(self) -> dict[str, Any]:
        return {"tokenizer": self.config.tokenizer, "source": to_mapping(self.config.source)}


def encode_split(
    source: Data,
    split: str,
    tokenizer: Any,
    path: Path,
    about: dict[str, Any] | None = None,
    *,
    passes: int = 1,
    batch: int = 64,
) -> CodesFile:
    """Encodes a split of a data set into a file and returns it.

    Each of the `passes` over a training split draws the samples' random changes (augmentation,
    where a digit starts to move) anew; clips of several lengths cannot share a file.
    """
    dataset: Dataset = source.split(split, tokenizer)
    training = split == "train"

    def batches() -> Iterable[Batch]:
        for turn in range(passes):
            for start in range(0, len(dataset), batch):
                rows = torch.arange(start, min(start + batch, len(dataset)))
                seeds = seeds_of(turn, rows) if training else None
                yield dataset.batch(rows.tolist(), seeds)

    return write_codes(path, tokenizer, batches(), {**(about or {}), "passes": passes})


@torch.no_grad()
def write_codes(
    path: str | Path, tokenizer: Any, batches: Iterable[Batch], about: dict[str, Any]
) -> CodesFile:
    """Encodes the `pixels` of batches and writes them, with everything else in the batches, to a
    file, which appears only when it is whole.

    Raises: ConfigError for a model without codes, DataError for clips of several lengths or no
    samples, WeightsError for a disk that refuses.
    """
    from zoo.weights.files import save_weights

    if Path(path).suffix != ".safetensors":
        raise DataError(f"A file of codes ends in .safetensors, and {path} does not.")
    if not hasattr(tokenizer, "codebook_size"):
        raise ConfigError("tokenizer: this model makes no codes; zoo list model names some.")
    device = next((p.device for p in tokenizer.parameters()), torch.device("cpu"))
    parts: dict[str, list[Tensor]] = {}
    tables: dict[str, dict[str, int]] = {}
    for batch in batches:
        codes = tokenizer.encode(batch["pixels"].to(device)).ids.cpu()
        parts.setdefault("codes", []).append(codes.to(_dtype(tokenizer.codebook_size)))
        for key, values in batch.items():
            if isinstance(values, Tensor) and key != "pixels":
                parts.setdefault(key, []).append(values.cpu())
            elif isinstance(values, list) and all(isinstance(value, str) for value in values):
                table = tables.setdefault(key, {})
                numbers = [table.setdefault(value, len(table)) for value in values]
                parts.setdefault(f"{STRINGS}.{key}", []).append(
                    torch.tensor(numbers, dtype=torch.int32)
                )
    if not parts:
        raise DataError("There are no samples to encode.")
    if len({part.shape[1:] for part in parts["codes"]}) > 1:
        raise DataError("Samples of several sizes cannot share a file of codes; give one size.")
    made = {
        "version": VERSION,
        "codebook_size": tokenizer.codebook_size,
        "weights": fingerprint(tokenizer),
        **about,
    }
    metadata = {
        MARK: json.dumps(made),
        STRINGS: json.dumps({k: list(t) for k, t in tables.items()}),
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: torch.cat(values) for name, values in parts.items()}
    save_weights(tensors, path, metadata)
    return CodesFile(path)


def fingerprint(model: Any) -> str:
    """Returns a short digest of a model's weights, whatever type they are stored in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _dtype(size: int) -> torch.dtype:
    if size <= 1 << 8:
        return torch.uint8
    return torch.int16 if size <= 1 << 15 else torch.int32


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
