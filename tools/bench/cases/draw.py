"""Drawing 48 handwritten digits on one thread: code after code with a cache, and masked.

Before a number is printed, the same seed gives the same codes with the cache and without it. The
floor is what the machine needs for the matrix products of the steps alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from tools.bench.floor import Products
from tools.bench.measure import Bar, Prepared

DOC = "draw: codes of 48 pictures with a cache, without one, against the floor; masked decoding"
PEERS = ["uncached"]
BATCH, PROMPT = 48, "a handwritten red three"


def prepare(peers: list[str]) -> Iterator[tuple[str, Prepared]]:
    """Yields code after code, then masked against it."""
    import zoo

    model = zoo.load("dalle-digits")
    yield from _written(model, peers)
    yield from _filled(model, zoo.load("muse-digits"))


def _written(model: Any, peers: list[str]) -> Iterator[tuple[str, Prepared]]:
    import zoo

    count = model.config.shape[0] * model.config.shape[1]
    exact = zoo.load("dalle-digits", dtype="fp32")  # where rounding cannot choose another code
    assert (_draw(exact, cached=True) == _draw(exact, cached=False)).all()
    dtype = "bf16" if next(model.backbone.parameters()).element_size() == 2 else "fp32"
    floor = Products(_shapes(model), dtype, rows=BATCH, head=False).timed()
    timed: dict[str, Callable[[], dict[str, float]]] = {
        "zoo": _per_code(lambda: _draw(model, cached=True), count),
        "floor": lambda: {"us/code": 1e3 * floor()["ms/token"] / BATCH},
    }
    bars = [
        Bar("microseconds a code (15,000/s: 66.7)", None, "zoo", 66.7, 40.0),
        Bar("cached / floor of its products", "floor", "zoo"),
    ]
    if "uncached" in peers:
        timed["uncached"] = _per_code(lambda: _draw(model, cached=False), count)
        bars.append(Bar("cached / uncached", "uncached", "zoo"))
    title = f"dalle-digits, {BATCH} pictures of {count} codes, {dtype}, no guidance"
    yield title, Prepared(timed, repeats=5, bars=bars)


def _filled(written: Any, filled: Any) -> Iterator[tuple[str, Prepared]]:
    passes: dict[str, int] = {}

    def draw(name: str, model: Any) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            seen: list[Any] = []
            cpu, wall = time.process_time(), time.perf_counter()
            model.draw_codes([PROMPT] * BATCH, seed=0, guidance=2.0, watch=seen.append)
            passes[name] = len(seen)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            return {"ms/picture": 1e3 * cpu / BATCH, "wall ms": 1e3 * wall / BATCH}

        return run

    timed = {"zoo": draw("zoo", filled), "code after code": draw("code after code", written)}
    for run in timed.values():
        run()
    assert passes["zoo"] <= 8, passes
    notes = [f"{passes['zoo']} passes of muse-digits against {passes['code after code']}"]
    bars = [Bar("masked / code after code", "code after code", "zoo")]
    title = f"{BATCH} pictures at guidance 2: masked, and code after code"
    yield title, Prepared(timed, repeats=5, notes=notes, bars=bars)


def _per_code(run: Callable[[], Any], count: int) -> Callable[[], dict[str, float]]:
    def timed() -> dict[str, float]:
        start = time.process_time()
        run()
        return {"us/code": 1e6 * (time.process_time() - start) / (BATCH * count)}

    return timed


def _draw(model: Any, cached: bool) -> Any:  # -> b n
    """Returns the codes of a batch: as `draw` has them, or with the whole stack run anew for every
    code."""
    import torch

    if cached:
        return model.draw_codes([PROMPT] * BATCH, seed=0, guidance=1.0)
    from zoo.generation.loop import stream
    from zoo.models.generator.sample import writing_options
    from zoo.models.generator.schema import draw_options

    with torch.inference_mode():
        steps = Again(model, model.condition([PROMPT] * BATCH))
        count = model.config.shape[0] * model.config.shape[1]
        none = torch.empty(BATCH, 0, dtype=torch.long)
        own = draw_options(True, model.config.sampling, {"seed": 0})
        wanted = writing_options(own, count)
        return torch.stack(list(stream(steps, none, wanted)), dim=1)


class Again:
    """Steps that remember no keys and values."""

    def __init__(self, model: Any, condition: Any) -> None:
        self.model, self.condition, self.codes = model, condition, None

    def step(self, tokens: Any, every: bool = False) -> Any:
        import torch

        self.codes = tokens if self.codes is None else torch.cat([self.codes, tokens], dim=1)
        hidden = self.model.run(self.codes, self.condition)
        return self.model.read(hidden[:, -1:])[:, -1]


def _shapes(model: Any) -> list[tuple[int, int]]:
    """Returns (outputs, inputs) of every product of a step, the head's last."""
    from zoo.nn.linear import Linear

    layers = [tuple(m.weight.shape) for m in model.backbone.modules() if isinstance(m, Linear)]
    return [*layers, tuple(model.head.weight.shape)]
