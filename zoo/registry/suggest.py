"""Did-you-mean: the one way in which errors name the nearest right word."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["hint"]


def hint(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Returns `" Did you mean 'x'?"` for the closest of `known`, else `otherwise`."""
    known = list(known)
    lowered = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {lowered[close[0]]!r}?"
    return f" {otherwise}" if otherwise else ""
