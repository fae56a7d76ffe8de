"""Writes zoo/assets/checksums.json: the sha256 of every shipped weight file, for `zoo doctor`.

python -m tools.write_checksums [--check]
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from tools.generated import ROOT, run
from zoo.models.shipped import shipped_models

ASSETS = ROOT / "zoo" / "assets"
FILE = ASSETS / "checksums.json"


def files() -> dict[Path, str]:
    """Returns the file and what it should hold."""
    sums = {
        path.relative_to(ASSETS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in sorted(set(shipped_models().values()))
        for path in sorted((ASSETS / folder).rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    return {FILE: json.dumps(sums, indent=2) + "\n"} if sums else {}


def main(argv: list[str] | None = None) -> int:
    """Writes or checks the file; returns the exit code."""
    return run(files, argv)


if __name__ == "__main__":
    sys.exit(main())
