"""Writes zoo/registry/counts.json: the number of parameters of every shipped model.

    python -m tools.write_counts            # write the file
    python -m tools.write_counts --check    # exit 1 when it is stale

`zoo.info` reads the file, so that describing a model needs no torch. Models are built on the meta
device: shapes only.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

FILE = Path(__file__).parent.parent / "zoo" / "registry" / "counts.json"


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


def render() -> str:
    """Returns what the file should hold."""
    return json.dumps({name: count(name) for name in shipped_models()}, indent=2) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Writes or checks the file; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 when stale")
    arguments = parser.parse_args(argv)
    text = render()
    if FILE.is_file() and FILE.read_text() == text:
        return 0
    if arguments.check:
        print(f"{FILE.name} is stale; run: make cards", file=sys.stderr)
        return 1
    FILE.write_text(text)
    print(f"wrote {FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
