"""What the machine needs for a model's products alone: the floor that engines are held against."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

__all__ = ["Products"]

ROUNDS = 63  # steps after the first
COLD = 48 << 20  # bytes of weights that no cache keeps from one round to the next


class Products:
    """One product per weight of a model, in the order of a step, each shape by the fastest way that
    is found here for so many rows: PyTorch's, oneDNN's, oneDNN's or MKL's own layout, the weight
    turned, ours.

    All weights are there, so that none stays in a cache which a real step would have to fill again.
    Those of a model's panels are its own, where our products are the fastest: memory differs by a
    fifth from one place to another.
    """

    def __init__(
        self,
        shapes: list[tuple[int, int]],
        dtype: str,
        rows: int = 1,
        head: bool = True,
        panels: list[Any] | None = None,  # a model's own, where it has some
    ) -> None:
        import torch

        self.kind = torch.bfloat16 if dtype == "bf16" else torch.float32
        counts = [rows] * len(shapes)
        if head:  # it comes last and has one row
            counts[-1] = 1
        best = {key: self._fastest(*key, dtype) for key in set(zip(shapes, counts, strict=True))}
        self.products = []
        for shape, count, own in zip(shapes, counts, panels or [None] * len(shapes), strict=True):
            x = torch.randn(count, shape[1], dtype=self.kind)
            way = best[shape, count]
            if own is not None and way in (_ours, _int8):
                self.products.append((own, x))
            else:
                self.products.append((way(torch.randn(shape, dtype=self.kind)), x))
        self.products = list(_in_one_call(self.products))

    def _fastest(self, shape: tuple[int, int], rows: int, dtype: str) -> Callable[[Any], Any]:
        import torch

        found = {}
        weight = torch.randn(shape, dtype=self.kind)
        copies = max(2, COLD // weight.nbytes) if rows == 1 else 2
        x = torch.randn(rows, shape[1], dtype=self.kind)
        for way in _ways(dtype):
            products = list(_in_one_call([(way(weight.clone()), x) for _ in range(copies)]))
            found[way] = min(_cost(products) for _ in range(4))
        return min(found, key=lambda way: found[way])

    def timed(self, per_token: bool = True) -> Callable[[], dict[str, float]]:
        """Returns a contender: what the products of one step cost, in a row of steps after the
        first, as engines are timed."""
        repeats = ROUNDS if per_token else 1

        def run() -> dict[str, float]:
            if per_token:
                _cost(self.products)
            cost = sum(_cost(self.products) for _ in range(repeats)) / repeats
            return {"ms/token": 1e3 * cost} if per_token else {"cpu s": cost}

        return run


def _in_one_call(products: list[tuple[Any, Any]]) -> Iterator[tuple[Callable[[Any], Any], Any]]:
    """Yields products with those of our own that follow each other as one: a call from Python takes
    longer than some of them do, and is none of what the machine needs."""
    import torch

    from zoo.nn.native.recording import Keys, Recording
    from zoo.nn.native.tape import Tape

    for ours, group in groupby(products, lambda pair: _panels(pair[0]) is not None):
        if not ours:
            yield from group
            continue
        pairs = list(group)
        with torch.inference_mode(), Recording([x for _, x in pairs], Keys({}, {})) as noted:
            for product, x in pairs:
                y = _panels(product)(x)
        tape = Tape(noted, [], y)
        yield lambda _, tape=tape: tape.play(tape.address, len(tape.entries)), None


def _panels(product: Any) -> Any:
    """Returns the product of ours that this is, or None."""
    from zoo.nn import native
    from zoo.nn.forms import Int8

    found = product.weight if isinstance(product, Int8) else product
    return found if isinstance(found, native.Panels) else None


def _cost(products: list[tuple[Callable[[Any], Any], Any]]) -> float:
    import torch

    with torch.inference_mode():
        start = time.process_time()
        for product, x in products:
            product(x)
        return time.process_time() - start


def _ways(dtype: str) -> list[Callable[[Any], Callable[[Any], Any]]]:
    """Returns what makes a product of a weight (o i), in each way that there is."""
    import torch

    from zoo.nn import native
    from zoo.nn.forms import Packed
    from zoo.nn.matmul import has_mkl

    if dtype == "int8":
        return [_int8]
    call = torch.ops.mkldnn._linear_pointwise.default
    ways: list[Callable[[Any], Callable[[Any], Any]]] = [
        lambda w: lambda x: torch.nn.functional.linear(x, w),
        lambda w: lambda x: call(x, w, None, "none", [], ""),
        lambda w: Packed(w, None),
        _turned,
    ]
    if dtype == "fp32" and has_mkl():
        ways.append(_packed_by_mkl)
    if native.library():
        ways.append(_ours)
    return ways


def _int8(weight: Any) -> Any:
    from zoo.nn.forms import Int8

    return Int8(weight, None)


def _ours(weight: Any) -> Any:
    from zoo.nn import native

    return native.Panels(weight, None)


def _packed_by_mkl(weight: Any) -> Callable[[Any], Any]:
    from zoo.nn.forms import PackedByMKL

    packed = PackedByMKL(weight, None)
    return lambda x: packed.product(x, "linear")


def _turned(weight: Any) -> Callable[[Any], Any]:
    import torch

    turned = weight.t().contiguous()
    return lambda x: torch.mm(x, turned)
