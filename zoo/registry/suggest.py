"""Did-you-mean: the one way in which errors name the nearest right word."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["hint", "nearest"]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Returns the one of `known` that `word` most likely stands for, if any comes near."""
    lowered = {name.lower(): name for name in known}
    close = get_close_matches(word.lower()[:100], lowered, n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


def hint(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Returns `" Did you mean 'x'?"` for the closest of `known`, else `otherwise`."""
    close = nearest(word, known)
    if close is not None:
        return f" Did you mean {close!r}?"
    return f" {otherwise}" if otherwise else ""
