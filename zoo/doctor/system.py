"""The machine, Python, and zoo itself."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from zoo.doctor.report import Finding

__all__ = ["look"]

OLDEST = (3, 10)


def look() -> Iterator[Finding]:
    """Yields versions and places."""
    import zoo

    yield Finding("system", "zoo", "ok", f"{zoo.__version__} in {Path(zoo.__file__).parent}")
    new_enough = sys.version_info >= OLDEST
    yield Finding(
        "system",
        "python",
        "ok" if new_enough else "broken",
        f"{platform.python_version()} in {sys.prefix}",
        "" if new_enough else f"zoo needs Python {'.'.join(map(str, OLDEST))} or newer.",
    )
    yield Finding("system", "platform", "note", platform.platform())
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("system", "processors", "note", f"{count}, {_memory()}")
    command = shutil.which("zoo")
    yield Finding(
        "system",
        "command",
        "ok" if command else "note",
        command or "zoo is not on PATH; python -m zoo is the same",
    )


def _memory() -> str:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return "memory unknown"
    return f"{total / 2**30:.0f} GiB of memory"
