"""From `module:Class` to the file and line where it is written, without importing it."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

__all__ = ["where"]


@cache
def where(builds: str) -> str:
    """Returns `path:line` of `"module:Class"`, relative to the working directory if inside."""
    module, _, name = builds.partition(":")
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        spec = None
    if spec is None or not spec.origin:
        return f"{module} (not found)"
    file = Path(spec.origin)
    found = re.search(rf"^(class|def) {re.escape(name)}\b", file.read_text(), re.MULTILINE)
    line = file.read_text()[: found.start()].count("\n") + 1 if found else 1
    try:
        return f"{file.relative_to(Path.cwd())}:{line}"
    except ValueError:
        return f"{file}:{line}"
