"""Which samples are held out: a function of their names, the same on every machine."""

from __future__ import annotations

import hashlib

from zoo.errors import DataError

__all__ = ["SPLITS", "in_split", "is_held_out"]

SPLITS = ("train", "test", "all")


def is_held_out(name: str, share: float) -> bool:
    """Returns whether a name falls into the held-out share of all names."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def in_split(name: str, split: str, share: float) -> bool:
    """Returns whether a name is in "train", "test" or "all"; raises DataError for other splits."""
    if split not in SPLITS:
        raise DataError(f"There is no split {split!r}; use train, test or all.")
    return split == "all" or (split == "test") == is_held_out(name, share)
