"""The handwritten digits that ship with zoo: 1797 real scans with a fixed split of 1437 and 360.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998,
doi 10.24432/C50P49, licence CC BY 4.0; the 1797 scans are the ones that scikit-learn distributes as
`load_digits`. Each is 8 x 8 pixels of 17 greys, made from a 32 x 32 scan by counting ink in blocks
of 4 x 4; here they are enlarged to 32 x 32 again. The file digits.npz holds `images` (n 8 8),
`labels` (n) and `held_out` (360 row numbers, stratified by label; scikit-learn's `train_test_split`
with `random_state=0`).
"""

# n digits, h w pixels

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from zoo.errors import DataError

if TYPE_CHECKING:
    from zoo.data.base import Dataset
    from zoo.data.schema import DigitsConfig

__all__ = ["DigitsData", "load_digits"]

FILE = Path(__file__).parent / "digits.npz"
SHA256 = "a3d27b6680e5787b2059333dd175a2a3bc9b385f332e5340cf231d89e0ac005f"


def load_digits(split: Literal["train", "test", "all"] = "all") -> tuple[np.ndarray, np.ndarray]:
    """Returns (images (n 32 32) uint8 with 255 for ink, labels (n) int64).

    Args:
        split: `"train"` (1437), `"test"` (the 360 held out), or both in scikit-learn's order.
    Raises: DataError when the shipped file is not the one it should be.
    """
    images, labels, held_out = _read()
    rows = np.zeros(len(labels), dtype=bool)
    rows[held_out] = True
    chosen = {"train": ~rows, "test": rows, "all": rows | ~rows}[split]
    return images[chosen], labels[chosen].astype(np.int64)


@cache
def _read() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        with np.load(FILE, allow_pickle=False) as file:
            images, labels, held_out = (file[key] for key in ("images", "labels", "held_out"))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{FILE} cannot be read ({error}); install zoo again.") from None
    if checksum(images, labels, held_out) != SHA256:
        raise DataError(f"{FILE} is damaged (its checksum is wrong); install zoo again.")
    return enlarge(images), labels, held_out


def checksum(*arrays: np.ndarray) -> str:
    """Returns the sha256 of the values of arrays, whatever file held them."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(
            f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()
        )
    return digest.hexdigest()


def enlarge(images: np.ndarray) -> np.ndarray:  # n 8 8 of 0..16 -> n 32 32 of 0..255
    """Returns four times larger pictures, bilinear, in whole numbers, so that every machine
    makes the same bytes."""
    weights = np.zeros((32, 8), dtype=np.int64)  # in eighths
    for row in range(32):
        centre = 2 * row + 1 - 4  # in eighths of a source pixel, from the centre of the first
        low, share = centre // 8, centre % 8
        weights[row, max(low, 0)] += 8 - share
        weights[row, min(low + 1, 7)] += share
    sums = np.einsum("hi,nij,wj->nhw", weights, images.astype(np.int64), weights)  # 64 x 0..16
    return ((sums * 255 + 64 * 16 // 2) // (64 * 16)).astype(np.uint8)


class DigitsData:
    """`data=digits`: the splits `train` and `test`, as the model's tokenizer prepares pictures."""

    labels = [str(digit) for digit in range(10)]

    def __init__(self, config: DigitsConfig) -> None:
        self.config = config

    def split(self, name: str, model: Any = None) -> Dataset:
        """Returns the pictures of `"train"` or `"test"`, prepared once and kept in memory (4 MB
        a 1000)."""
        import torch

        from zoo.data.images import PictureDataset, prepare

        images, labels = load_digits(name)  # type: ignore[arg-type]
        pixels = prepare(list(images), model)
        return PictureDataset(pixels, torch.from_numpy(labels), self.config.augment)
