"""Writes zoo/registry/counts.json: the number of parameters of every shipped model.

    python -m tools.write_counts [--check]

`zoo.info` reads the file, so that describing a model needs no torch. Models are built on the meta
device: shapes only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tools.generated import ROOT, run

FILE = ROOT / "zoo" / "registry" / "counts.json"


def shipped_models() -> list[str]:
    """Returns the model names that lie in conf/ (a plugin's are counted when asked for)."""
    from zoo.registry.nodes import conf_dir, index

    root = conf_dir()
    return sorted(
        name for name, places in index("model").items() if any(root in f.parents for _, f in places)
    )


def count(name: str) -> int:
    """Returns the number of parameters of a model, shared ones once."""
    import zoo
    from zoo.models.base import build_empty

    return sum(parameter.numel() for parameter in build_empty(zoo.config(name)).parameters())


def files() -> dict[Path, str]:
    """Returns the file and what it should hold."""
    counts = {name: count(name) for name in shipped_models()}
    return {FILE: json.dumps(counts, indent=2) + "\n"}


def main(argv: list[str] | None = None) -> int:
    """Writes or checks the file; returns the exit code."""
    return run(files, argv)


if __name__ == "__main__":
    sys.exit(main())
