"""Writes index.json from the installed timm; a test fails when the two differ.

    python -m zoo_timm.index            # two minutes: every architecture is built, on shapes only
    python -m zoo_timm.index --check    # says what is stale, in seconds; exit code 1

The index is `{"timm": version, "models": {architecture: entry}, "old": {old name: name.tag}}`. An
entry holds `parameters`, `cfg` (what timm says of the architecture, where that is not the default
of its PretrainedCfg) and `tags` (of each of its weights what differs from `cfg`, timm's default tag
first).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from zoo_timm.plugin import INDEX

KEPT = (
    "crop_mode", "crop_pct", "input_size", "interpolation", "license", "mean", "num_classes", "std",
)  # fmt: skip


def describe(
    architecture: str, pretrained: Mapping[str, list[str]] | None = None
) -> dict[str, Any] | None:
    """Returns the entry of one architecture, without its count; None when timm has none such.

    `pretrained` is what `_pretrained` returns, for who asks more than once.
    """
    import timm

    if not timm.is_model(architecture):
        return None
    default = timm.get_pretrained_cfg(architecture)
    cfg = _kept(default) if default is not None else {}
    tags = (pretrained or _pretrained()).get(architecture, [])
    if default is not None and default.tag in tags:
        tags = [default.tag, *(tag for tag in tags if tag != default.tag)]
    return {"cfg": cfg, "tags": {tag: _tag(architecture, tag, cfg) for tag in tags}}


def _pretrained() -> dict[str, list[str]]:
    """Returns architecture -> its tags of weights. Those without a hub repository (19 of 1826) are
    left out, since they cannot be fetched from one."""
    import timm

    found: dict[str, list[str]] = {}
    for name in timm.list_pretrained():
        if _cfg(name).hf_hub_id:
            architecture, _, tag = name.partition(".")
            found.setdefault(architecture, []).append(tag)
    return found


def _cfg(name: str) -> Any:
    """Returns timm's PretrainedCfg of a name that has one."""
    import timm

    return timm.get_pretrained_cfg(name)


def _kept(cfg: Any) -> dict[str, Any]:
    """Returns what a PretrainedCfg says besides its defaults, as JSON holds it."""
    plain = {
        field.name: getattr(cfg, field.name)
        for field in dataclasses.fields(cfg)
        if field.name in KEPT and getattr(cfg, field.name) not in (field.default, None)
    }
    papers = cfg.paper_ids if isinstance(cfg.paper_ids, (list, tuple)) else [cfg.paper_ids]
    arxiv = next((p.partition(":")[2] for p in papers if p and p.startswith("arXiv:")), None)
    return plain | ({"paper": arxiv} if arxiv else {})


def _tag(architecture: str, tag: str, base: Mapping[str, Any]) -> dict[str, Any]:
    from timm.models import PretrainedCfg

    cfg = _cfg(f"{architecture}.{tag}")
    defaults = {field.name: field.default for field in dataclasses.fields(PretrainedCfg)}
    kept = _kept(cfg)
    changed = {key: value for key, value in kept.items() if base.get(key) != value}
    back = {key: defaults[key] for key in base if key not in kept and key in defaults}
    moved = cfg.hf_hub_id != f"timm/{architecture}.{tag}"
    return changed | back | ({"hf_hub_id": cfg.hf_hub_id} if moved else {})


def make_index(count: Callable[[str], int | None]) -> dict[str, Any]:
    """Returns the index of the installed timm; `count` gives an architecture's parameters."""
    import timm
    from timm.models import _registry

    models, pretrained = {}, _pretrained()
    for name in timm.list_models():
        entry = describe(name, pretrained)
        assert entry is not None, name
        models[name] = {"parameters": count(name), **entry}
    old = {name: new for name, new in _registry._deprecated_models.items() if new}
    return json.loads(json.dumps({"timm": timm.__version__, "models": models, "old": old}))


def count_parameters(architecture: str) -> int:
    """Returns how many parameters an architecture has, without allocating them."""
    import timm
    import torch

    with torch.device("meta"):
        return sum(p.numel() for p in timm.create_model(architecture).parameters())


def write(index: Mapping[str, Any]) -> str:
    """Returns the file's text: a line for each architecture, so that a new timm is a readable
    difference."""

    def block(rows: Mapping[str, Any]) -> str:
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in rows.items()]
        return "{\n" + ",\n".join(lines) + "\n}"

    models, old = block(index["models"]), block(index["old"])
    return f'{{\n"timm": "{index["timm"]}",\n"models": {models},\n"old": {old}\n}}\n'


def stale() -> list[str]:
    """Returns the entries in which index.json differs from the installed timm (counts apart)."""
    found = json.loads(INDEX.read_text(encoding="utf-8"))
    counts = {name: entry["parameters"] for name, entry in found["models"].items()}
    true = make_index(counts.get)
    keys = ("timm", "models", "old")
    wrong = [key for key in keys[:1] if found[key] != true[key]]
    for key in keys[1:]:
        names = sorted({*found[key], *true[key]})
        wrong += [name for name in names if found[key].get(name) != true[key].get(name)]
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Writes the index, or checks it."""
    parser = argparse.ArgumentParser(prog="python -m zoo_timm.index", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say what is stale")
    if parser.parse_args(arguments).check:
        wrong = stale()
        print("\n".join(wrong) or f"{INDEX} is up to date")
        return 1 if wrong else 0
    index = make_index(count_parameters)
    INDEX.write_text(write(index), encoding="utf-8")
    print(f"{INDEX}: {len(index['models'])} architectures of timm {index['timm']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
