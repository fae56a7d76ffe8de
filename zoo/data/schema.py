"""Schemas of the data sets. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import ConfigError
from zoo.registry import kind, part, section, setting


@dataclass(kw_only=True)
class DataConfig:
    """What every data set shares: nothing; a kind says where its samples come from."""


@dataclass(kw_only=True)
class Augment:
    """Random changes of training pictures; every one is off unless it is given."""

    flip: bool = setting(False, "mirror half of them left to right")
    shift: float = setting(0.0, "move by up to this share of the sides", low=0.0, high=1.0)
    rotate: float = setting(0.0, "turn by up to so many degrees", low=0.0, high=180.0)
    scale: float = setting(0.0, "grow or shrink by a factor of up to 1 + this", low=0.0, high=4.0)
    stretch: float = setting(
        0.0, "the same for the width alone, against the height", low=0.0, high=4.0
    )
    shear: float = setting(0.0, "slant by up to so many degrees", low=0.0, high=80.0)
    elastic: float = setting(
        0.0, "bend by up to this share of the sides, smoothly over the picture", low=0.0, high=0.5
    )
    erase: float = setting(0.0, "chance that a box is blanked out", low=0.0, high=1.0)
    erase_area: float = setting(
        0.25, "largest share of the picture that the box covers", above=0.0, high=1.0
    )


@dataclass(kw_only=True)
class ImageDataConfig(DataConfig):
    """Pictures with a class each."""

    augment: Augment = section(Augment, doc="random changes, in training only")


@kind("data", "digits", builds="zoo.data.digits:DigitsData")
@dataclass(kw_only=True)
class DigitsConfig(ImageDataConfig):
    """The handwritten digits that ship with zoo: 1437 to train on, 360 held out."""


@kind("data", "colour-digits", builds="zoo.data.colour_digits:ColourDigitsData")
@dataclass(kw_only=True)
class ColourDigitsConfig(DataConfig):
    """The shipped digits in four colours, with captions: "a handwritten red three"."""

    unseen: bool = setting(
        False, "also train on the four pairs of colour and digit that are kept for the end"
    )


@kind("data", "moving-digits", builds="zoo.data.moving_digits:MovingDigitsData")
@dataclass(kw_only=True)
class MovingDigitsConfig(DataConfig):
    """The shipped digits on the move, with captions: "a three moving left" (right, up, down)."""

    frames: list[int] = setting(
        [5], "lengths of clips: a training batch has one of them, held-out clips the first", low=1
    )
    step: int = setting(
        4, "pixels a frame, or as many as keep the digit in the picture to the end", low=1
    )
    grid: int = setting(1, "a digit starts at a multiple of so many pixels", low=1, high=16)

    def check(self) -> None:
        if not self.frames or max(self.frames) > 17:
            raise ConfigError(
                "frames: give one length or more, of at most 17 frames: the way is 16 pixels long."
            )


@kind("data", "codes", builds="zoo.data.codes:CodesData")
@dataclass(kw_only=True)
class CodesConfig(DataConfig):
    """Another data set as a visual tokenizer's codes, encoded once and kept on disk."""

    source: DataConfig = part("data", {"kind": "colour-digits"}, "the pictures or clips")
    tokenizer: str = setting(
        "fsq-digits", "what encodes them: a model's name, dir:runs/7 or hf:org/repo"
    )
    folder: str | None = setting(
        None, "where the codes lie, train.safetensors and test.safetensors; null is ./codes"
    )
    passes: int = setting(
        1, "times that training samples are encoded, each with other random changes", low=1
    )
    reader: str | None = setting(
        None, "a frozen text model (t5-small, dir:…) whose features of the captions are kept too"
    )
    reader_layer: int | None = setting(
        None, "which of its blocks they are from; null is the norm after the last"
    )
    reader_length: int = setting(77, "tokens that a caption is cut or filled up to", low=1)
    reader_masks: bool = setting(True, "whether places without a token are not read (T5)")


@kind("data", "image-folder", builds="zoo.data.folder:ImageFolderData")
@dataclass(kw_only=True)
class ImageFolderConfig(ImageDataConfig):
    """Folders of pictures, a folder for each class: `FOLDER/train/cat/1.png`, or `FOLDER/cat/1.png`
    and a share held out."""

    folder: str | None = setting(None, "where they lie; must be given")
    train: str = setting("train", "folder of the training pictures in it, where there is one")
    test: str = setting("test", "folder of the held-out pictures in it, where there is one")
    held_out: float = setting(
        0.2, "share held out, chosen by file name, where there are no such folders", low=0, high=0.9
    )


@kind("data", "hf-image", builds="zoo.data.hub:HubImageData")
@dataclass(kw_only=True)
class HubImageConfig(ImageDataConfig):
    """A data set of the Hugging Face `datasets` library with a picture and a class in each row."""

    repo: str | None = setting(None, "data set on the hub, org/name")
    folder: str | None = setting(
        None, "instead: a folder on disk, saved by `save_to_disk` or readable by `load_dataset`"
    )
    subset: str | None = setting(None, "its configuration, where it has several")
    revision: str | None = setting(None, "branch, tag or commit of the repository")
    image: str = setting("image", "column of the pictures")
    label: str = setting("label", "column of the classes")
    train: str = setting("train", "split to train on")
    test: str = setting("test", "split that is held out")

    def check(self) -> None:
        if self.repo is not None and self.folder is not None:
            raise ConfigError("repo: give either a repo or a folder, not both.")
