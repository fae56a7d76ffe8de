"""Folders of pictures, a folder for each class."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from zoo.data.images import LazyPictureDataset
from zoo.data.schema import ImageFolderConfig
from zoo.errors import DataError

__all__ = ["ImageFolderData"]

ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class ImageFolderData:
    """`data=image-folder data.folder=pictures`."""

    def __init__(self, config: ImageFolderConfig) -> None:
        self.config = config
        if config.folder is None:
            raise DataError("data.folder: say where the pictures lie, as in data.folder=pictures.")
        self.root = Path(config.folder).expanduser()
        if not self.root.is_dir():
            raise DataError(f"data.folder: {self.root} is not a folder.")
        self.divided = (self.root / config.train).is_dir()
        self.labels = _classes(self.root / config.train if self.divided else self.root)

    def split(self, name: str, model: Any = None) -> FolderDataset:
        """Returns `"train"` or `"test"`; raises DataError when it is empty or holds a class of
        its own."""
        folder = self.root
        if self.divided:
            folder = self.root / {"train": self.config.train, "test": self.config.test}[name]
            if not folder.is_dir():
                raise DataError(
                    f"{self.root} has a folder {self.config.train} and no {folder.name}."
                )
        files, labels = [], []
        known = {label: number for number, label in enumerate(self.labels)}
        for label in _classes(folder):
            if label not in known:
                raise DataError(f"{folder / label} is a class that the training pictures lack.")
            for file in _pictures(folder / label):
                if self.divided or (
                    _held_out(file, folder, self.config.held_out) == (name == "test")
                ):
                    files.append(file)
                    labels.append(known[label])
        if not files:
            raise DataError(f"{folder} holds no pictures for {name}.")
        return FolderDataset(files, torch.tensor(labels), self.config.augment, model)


class FolderDataset(LazyPictureDataset):
    """The pictures of a split; each is read when it is asked for."""

    def __init__(self, files: list[Path], *rest: Any) -> None:
        super().__init__(*rest)
        self.files = files

    def picture(self, index: int) -> Path:
        return self.files[index]

    def name(self, index: int) -> str:
        return str(self.files[index])


def _classes(folder: Path) -> list[str]:
    found = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise DataError(f"{folder} holds no folders; pictures lie in a folder for each class.")
    return found


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS and not p.name.startswith(".")
    )


def _held_out(file: Path, root: Path, share: float) -> bool:
    """By name, so that adding pictures moves none from one side to the other."""
    digest = hashlib.sha256(file.relative_to(root).as_posix().encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
