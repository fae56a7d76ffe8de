"""Files that are generated from the code: write them, or check that they are current.

python -m tools.generated              # write every one of them (make cards)
python -m tools.generated --check      # change nothing, exit 1 when one is stale
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["ROOT", "main", "run"]

ROOT = Path(__file__).parent.parent
TOOLS = (
    "write_counts",
    "write_checksums",
    "write_cards",
)  # in the order in which they build on each other


def run(files: Callable[[], dict[Path, str]], argv: list[str] | None = None) -> int:
    """Writes the files that `files()` maps to texts, or checks them; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 when stale")
    check = parser.parse_args(argv).check
    stale = [
        (path, text)
        for path, text in files().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is stale; run: make cards", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


def main(argv: list[str] | None = None) -> int:
    """Runs every tool; returns the worst exit code."""
    return max(importlib.import_module(f"tools.{tool}").main(argv) for tool in TOOLS)


if __name__ == "__main__":
    sys.exit(main())
