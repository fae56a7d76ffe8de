"""Data sets of the Hugging Face `datasets` library, from its hub, its cache or a folder."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from zoo.data.images import LazyPictureDataset
from zoo.data.schema import HubImageConfig
from zoo.errors import DataError
from zoo.registry.suggest import hint

__all__ = ["HubImageData"]


class HubImageData:
    """`data=hf-image data.repo=org/name`."""

    def __init__(self, config: HubImageConfig) -> None:
        self.config = config
        self.splits = _load(config)
        rows = self._rows(config.train)
        self._check_column(rows, config.image)
        self._check_column(rows, config.label)
        names = getattr(rows.features[config.label], "names", None)
        self._numbers: dict[Any, int] | None = None
        if names is None:  # classes written out: their sorted values are the labels
            found = sorted(set(rows[config.label]))
            self._numbers = {value: number for number, value in enumerate(found)}
            names = [str(value) for value in found]
        self.labels: list[str] = list(names)

    def split(self, name: str, model: Any = None) -> HubImageDataset:
        """Returns `"train"` or `"test"`; raises DataError naming a split or a class that does
        not exist."""
        rows = self._rows({"train": self.config.train, "test": self.config.test}[name])
        labels = rows[self.config.label]
        if self._numbers is not None:
            strange = sorted(set(labels) - set(self._numbers), key=str)
            if strange:
                raise DataError(f"data.test: class {strange[0]!r} is not in the training split.")
            labels = [self._numbers[value] for value in labels]
        return HubImageDataset(
            rows, self.config.image, torch.tensor(list(labels)), self.config.augment, model
        )

    def _rows(self, split: str) -> Any:
        if split not in self.splits:
            known = f"Splits: {', '.join(self.splits)}."
            raise DataError(f"data: there is no split {split!r}.{hint(split, self.splits, known)}")
        return self.splits[split]

    def _check_column(self, rows: Any, column: str) -> None:
        if column not in rows.column_names:
            known = f"Columns: {', '.join(rows.column_names)}."
            raise DataError(
                f"data: there is no column {column!r}.{hint(column, rows.column_names, known)}"
            )


class HubImageDataset(LazyPictureDataset):
    """The rows of a split; each picture is decoded when it is asked for."""

    def __init__(self, rows: Any, column: str, *rest: Any) -> None:
        super().__init__(*rest)
        # undecoded: our own reader has the size limit, the orientation and the one-sentence errors
        image = importlib.import_module("datasets").Image(decode=False)
        self.rows, self.column = rows.cast_column(column, image), column

    def picture(self, index: int) -> Any:
        row = self.rows[index][self.column]
        return row["bytes"] if row["bytes"] is not None else row["path"]

    def name(self, index: int) -> str:
        return f"row {index}"


def _load(config: HubImageConfig) -> Any:
    """Returns split name -> rows."""
    if config.repo is None and config.folder is None:
        raise DataError("data.repo: say which data set, as in data.repo=org/name (or data.folder).")
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise DataError(
            "data=hf-image needs the datasets library: pip install 'multimodal-zoo[data]'."
        ) from None
    source = config.repo or str(Path(str(config.folder)).expanduser())
    try:
        if config.folder is not None and _saved_to_disk(Path(source)):
            found = datasets.load_from_disk(source)
        else:
            found = datasets.load_dataset(source, config.subset, revision=config.revision)
    except (
        Exception
    ) as error:  # the library raises whatever its readers, file systems and hub raise
        raise DataError(f"data: {source} cannot be loaded: {_first_line(error)}") from None
    return found if hasattr(found, "keys") else {config.train: found}


def _saved_to_disk(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
