"""Files of timm's older layouts, converted by timm itself.

Many files on the hub were written before an architecture's modules were renamed or its tables
stopped being stored; timm renames, drops and resizes tensors while it loads, by a function of each
family that needs a real network. That costs a second copy of the weights, so it is done only for
files that need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from zoo.errors import ZooError
from zoo.weights.lazy import as_lazy
from zoo_timm.model import create_network
from zoo_timm.schema import TimmBackboneConfig

__all__ = ["convert"]


def convert(config: TimmBackboneConfig, source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the tensors of `source` under the names, and in the shapes, that the architecture has
    today; `source` itself when it has them already, or when timm cannot make anything of it.

    Only the head keeps the number of classes that the file has: where the config has another one,
    that is for the loader to report.
    """
    config = replace(config, classes=_classes(config, source))
    with torch.device("meta"):
        wanted = create_network(config).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    if shapes == {name: as_lazy(tensor).shape for name, tensor in source.items()}:
        return source
    state = {name: as_lazy(tensor).read(copy=True) for name, tensor in source.items()}
    overlay = {"state_dict": state, "num_classes": config.classes, "custom_load": False}
    try:
        network = create_network(config, pretrained=True, pretrained_cfg_overlay=overlay)
    except (ZooError, RuntimeError, LookupError, AttributeError):
        return source  # whose misfits the loader lists
    return network.state_dict()


def _classes(config: TimmBackboneConfig, source: Mapping[str, Any]) -> int:
    """Returns how many classes a file's head has; the config's if it has none."""
    import timm

    default = timm.get_pretrained_cfg(config.architecture)
    names = getattr(default, "classifier", None)
    first = names if isinstance(names, str) else next(iter(names or ()), None)
    weight = source.get(f"{first}.weight")
    return config.classes if weight is None else as_lazy(weight).shape[0]
