"""A bound on what a config may ask for before its weights are looked at: one of a stranger may say
`depth: 1000000000`, which is in range and would be built for hours."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any

from torch.nn.modules import module as hooks

from zoo.errors import WeightsError

__all__ = ["bounded"]

# Beyond what any model here has over its weights: tied tensors, parts that are new (`partial`).
FACTOR, NUMBERS, PIECES = 16, 1 << 27, 20_000
ALONE = 300_000  # modules and tensors, where there are no weights to compare with


@contextmanager
def bounded(weights: Mapping[str, Any] | None, where: str) -> Iterator[None]:
    """Refuses to build, in this thread, what is absurdly more than its weights are; `where` is the
    config's file.

    Raises: WeightsError, as soon as so many modules or numbers are there.
    """
    me, pieces, numbers = threading.get_ident(), 0, 0
    most_pieces, most_numbers = ALONE, None
    if weights is not None:
        most_pieces = PIECES + FACTOR * len(weights)
        most_numbers = NUMBERS + FACTOR * sum(prod(weights[name].shape) for name in weights)

    def count(owner: Any, name: str, new: Any) -> None:
        nonlocal pieces, numbers
        if threading.get_ident() != me or new is None:
            return
        pieces += 1
        numbers += new.numel() if hasattr(new, "numel") else 0
        if pieces > most_pieces or (most_numbers is not None and numbers > most_numbers):
            beside = "" if weights is None else f" Its weights hold {len(weights)} tensors."
            raise WeightsError(
                f"{where} describes a model of more than {pieces - 1:,} parts and "
                f"{numbers:,} numbers, which is damaged or hostile.{beside}"
            )

    handles = [
        hooks.register_module_module_registration_hook(count),
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
