"""Import and list names, each in a fresh process."""

from __future__ import annotations

from collections.abc import Iterator

from tools.bench.measure import Prepared, subprocess_cost

DOC = "import and list every model name, as whole processes"
PEERS = ["timm", "transformers", "python"]
CODE = {
    "zoo": "import zoo; zoo.list()",
    "timm": "import timm; timm.list_models()",
    "transformers": "from transformers import AutoModel, CONFIG_MAPPING; list(CONFIG_MAPPING)",
    "python": "pass",
}


def prepare(peers: list[str]) -> Iterator[tuple[str, Prepared]]:
    """Yields the one comparison."""
    names = ["zoo", *peers]
    runs = {name: (lambda code=CODE[name]: subprocess_cost(code)) for name in names}
    yield "import + list", Prepared(runs, repeats=5)
