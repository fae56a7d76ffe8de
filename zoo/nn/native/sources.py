"""What the C is compiled from. setup.py runs this file by itself: it imports nothing of zoo."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["FILES", "digest"]

HERE = Path(__file__).parent
FILES = sorted(path.name for path in HERE.glob("*.c"))


def digest() -> str:
    """Returns a word that changes with every line of C: kernels that were compiled before a line
    changed must not be called."""
    found = hashlib.sha256()
    for name in [*FILES, "native.h"]:
        found.update((HERE / name).read_bytes())
    return found.hexdigest()[:16]
