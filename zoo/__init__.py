"""zoo: every transformer in the field's textbook, loaded by name, built from one set of parts.

import zoo
zoo.list("model", "vit*")                    # names; imports no torch
zoo.info("vit-base-16")                      # parameters, memory, inputs, licence, paper, weights
model = zoo.load("vit-digits")               # with weights
model = zoo.create("vit-tiny-16", "backbone.position=rope", seed=0)  # new weights, one part swapped
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# PyTorch then keeps large tensors in huge pages (Linux): a model reads each weight once, and pages
# of 4 KiB cost a tenth of that time or more. PyTorch asks at its first large tensor; "0" is no.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"

_API = {
    "config": "zoo.api.describe",
    "create": "zoo.api.build",
    "errors": "zoo.errors",
    "info": "zoo.api.describe",
    "list": "zoo.api.describe",
    "load": "zoo.api.build",
    "merge": "zoo.api.build",
    "plot": "zoo.plot",
    "plugins": "zoo.api.describe",
    "pull": "zoo.api.share",
    "push": "zoo.api.share",
    "save": "zoo.api.build",
    "tokenizer": "zoo.api.text",
}

__all__ = ["__version__", *_API]

if TYPE_CHECKING:
    from zoo import errors, plot
    from zoo.api.build import create, load, merge, save
    from zoo.api.describe import config, info, list, plugins
    from zoo.api.share import pull, push
    from zoo.api.text import tokenizer


def __getattr__(name: str) -> Any:  # PEP 562: `import zoo` costs nothing until something is used
    import importlib

    if name not in _API:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    module = importlib.import_module(_API[name])
    return module if _API[name].endswith(f"zoo.{name}") else getattr(module, name)


def __dir__() -> Any:
    return sorted(__all__)
