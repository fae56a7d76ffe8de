"""The names timm/…: one node for each of timm's architectures, made from an index, without timm.

The index holds what timm knows of each architecture and of each of its weights. It was written for
one version of timm; beside another one, timm itself is asked for names that the index lacks.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

INDEX = Path(__file__).with_name("index.json")
RESIZE = {"center": "shortest", "squash": "squash", "border": "border"}  # timm's crop_mode
LABELS = {  # which of ImageNet's label sets has so many classes; timm tells them by that, too
    1000: "imagenet-1k",
    11221: "imagenet-21k-miil",
    11821: "imagenet-12k",
    21841: "imagenet-22k",
    21842: "imagenet-22k-ms",
    21843: "imagenet-21k-goog",
}


@cache
def read_index() -> dict[str, Any]:
    """Returns the index (see zoo_timm.index, which writes it)."""
    return json.loads(INDEX.read_text(encoding="utf-8"))


def names(group: str) -> list[str]:
    """Returns every name of a group: timm's architectures, if it is `model`."""
    return [f"timm/{name}" for name in read_index()["models"]] if group == "model" else []


def node(group: str, name: str) -> dict[str, Any] | None:
    """Returns the node of timm/<architecture>; None when timm has no such architecture."""
    if group != "model":
        return None
    architecture = name.partition("/")[2]
    new = read_index()["old"].get(architecture)
    if new is not None:
        message = f"model {name!r} is now called 'timm/{new}'."
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        architecture, _, tag = new.partition(".")
        return make_node(architecture, read_index()["models"][architecture], tag)
    entry = read_index()["models"].get(architecture)
    if entry is None and ("timm" in sys.modules or version("timm") != read_index()["timm"]):
        from zoo_timm.index import describe  # imports timm

        entry = describe(architecture)
    return make_node(architecture, entry) if entry is not None else None


def parameters(name: str) -> int | None:
    """Returns how many parameters the unchanged model of a name has, if the index knows."""
    return read_index()["models"].get(name.partition("/")[2], {}).get("parameters")


def make_node(architecture: str, entry: Mapping[str, Any], first: str = "") -> dict[str, Any]:
    """Returns the node of one entry of the index; timm's own choice of weights is the default, or
    the tag `first`, or nothing when that has no weights on a hub."""
    tags = dict(entry["tags"])
    if first:
        tags = {first: tags.pop(first), **tags} if first in tags else {}
    base = entry["cfg"] | next(iter(tags.values()), {})
    weights = {}
    for tag, cfg in tags.items():
        here, there = keys(base), keys(entry["cfg"] | cfg)
        weights[tag] = {
            "repo": cfg.get("hf_hub_id", f"timm/{architecture}.{tag}"),
            "format": "timm/native",
            "license": cfg.get("license", entry["cfg"].get("license")),
            "set": {key: value for key, value in there.items() if value != here[key]},
        }
    node: dict[str, Any] = {"kind": "timm/backbone", "architecture": architecture}
    for key, value in keys(base).items():
        _, dot, inner = key.partition(".")
        (node.setdefault("tokenizer", {}) if dot else node)[inner or key] = value
    card = {"title": f"{architecture} (timm)", "license": base.get("license")}
    return {**node, "weights": weights, "card": {**card, "paper": base.get("paper")}}


def keys(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Returns timm's pretrained cfg as our dotted keys; what it leaves out has timm's default."""
    classes = cfg.get("num_classes", 1000)
    channels, height, width = cfg.get("input_size", (3, 224, 224))
    return {
        "classes": classes,
        "label_set": LABELS.get(classes),
        "tokenizer.image": [height, width],
        "tokenizer.channels": channels,
        "tokenizer.resize": RESIZE[cfg.get("crop_mode", "center")],
        "tokenizer.crop": cfg.get("crop_pct", 0.875),
        "tokenizer.interpolation": cfg.get("interpolation", "bicubic"),
        "tokenizer.mean": list(cfg.get("mean", (0.485, 0.456, 0.406))),
        "tokenizer.std": list(cfg.get("std", (0.229, 0.224, 0.225))),
    }
