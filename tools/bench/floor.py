"""What the machine needs for a model's products alone: the floor that engines are held against."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["Products"]


class Products:
    """One product per weight of a model, in the order of a step, each by the fastest way found.

    All weights are there, so that none stays in a cache which a real step would have to fill again.
    """

    def __init__(self, shapes: list[tuple[int, int]], dtype: str) -> None:
        import torch

        from zoo.nn.forms import Int8, Packed

        self.kind = torch.bfloat16 if dtype == "bf16" else torch.float32
        weights = [torch.randn(shape, dtype=self.kind) for shape in shapes]
        self.inputs = [shape[1] for shape in shapes]
        self.head = len(shapes) - 1
        call = torch.ops.mkldnn._linear_pointwise.default
        ways: dict[str, list[Callable[[Any], Any]]] = {}
        if dtype == "int8":
            ways["fbgemm"] = [Int8(w, None) for w in weights]
        else:
            ways["torch"] = [lambda x, w=w: torch.nn.functional.linear(x, w) for w in weights]
            ways["onednn"] = [lambda x, w=w: call(x, w, None, "none", [], "") for w in weights]
        if dtype == "bf16":
            ways["packed"] = [Packed(w, None) for w in weights]
        self.ways = ways

    def timed(self, rows: int, per_token: bool = True) -> Callable[[], dict[str, float]]:
        """Returns a contender: the fastest way's cost for `rows` rows (the head has one)."""
        import torch

        inputs = {i: torch.randn(rows, i, dtype=self.kind) for i in set(self.inputs)}

        def step(products: list[Callable[[Any], Any]]) -> float:
            start = time.process_time()
            for index, product in enumerate(products):
                x = inputs[self.inputs[index]]
                product(x[:1] if index == self.head else x)
            return time.process_time() - start

        def run() -> dict[str, float]:
            repeats = 8 if rows == 1 else 1
            with torch.inference_mode():
                best = min(
                    sum(step(products) for _ in range(repeats)) / repeats
                    for products in self.ways.values()
                )
            return {"ms/token": 1e3 * best} if per_token else {"cpu s": best}

        return run
