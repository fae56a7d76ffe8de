"""The weights that ship with zoo. Torch-free."""

from __future__ import annotations

from pathlib import Path

from zoo.registry.nodes import conf_dir, index, read_mapping

__all__ = ["ASSETS", "shipped_models"]

ASSETS = Path(__file__).parent.parent / "assets"


def shipped_models() -> dict[str, str]:
    """Returns name -> folder below `ASSETS` of our models whose first weights ship with zoo."""
    root = conf_dir()
    found = {}
    for name, places in sorted(index("model").items()):
        if any(root in file.parents for _, file in places):
            tags = read_mapping("model", name).get("weights") or {}
            first = next(iter(tags.values()), None) or {}
            if first.get("folder"):
                found[name] = first["folder"]
    return found
