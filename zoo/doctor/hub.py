"""The hub: its address, whether there is a token (never which), and the cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from zoo.doctor.report import Finding

__all__ = ["look"]

ROOM = 5 * 2**30  # bytes; below that the next large model may not fit


def look() -> Iterator[Finding]:
    """Yields endpoint, token, cache."""
    from zoo.hub.client import cache_root, is_offline, shown_endpoint

    offline = " (offline: HF_HUB_OFFLINE)" if is_offline() else ""
    yield Finding("hub", "endpoint", "note", shown_endpoint() + offline)
    yield _token()
    yield _cache(cache_root())


def _token() -> Finding:
    from huggingface_hub import get_token

    if get_token() is None:
        text = "none; needed to push, and for private repositories"
        return Finding("hub", "token", "absent", text, "hf auth login, or set HF_TOKEN")
    source = "HF_TOKEN" if os.environ.get("HF_TOKEN") else "hf auth login"
    return Finding("hub", "token", "ok", f"present (from {source})")


def _cache(folder: Path) -> Finding:
    place = folder
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        advice = "set HF_HUB_CACHE to a folder of yours"
        return Finding("hub", "cache", "broken", f"{folder} cannot be written", advice)
    free = shutil.disk_usage(place).free
    text = f"{folder}, {free / 1e9:.1f} GB free"
    if free < ROOM:
        return Finding("hub", "cache", "note", text, "free some, or set HF_HUB_CACHE elsewhere")
    return Finding("hub", "cache", "ok", text)
