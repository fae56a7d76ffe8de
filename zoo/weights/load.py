"""Put stored tensors into a module that was built on the meta device, without a copy in between.

The tensors *become* the module's parameters and buffers, by default as views of the memory-mapped
file: a load costs no memory beyond the file and no time beyond its headers; pages are read on use.
Nothing here computes or initialises on meta: a `normal_` there imports 800 modules (1.3 s).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from zoo.errors import WeightsError
from zoo.weights.fit import Fit, Slot, complaint, fit, module_slots
from zoo.weights.lazy import LazyTensor, MemoryTensor, owned

__all__ = ["LoadReport", "load_into"]


@dataclass(frozen=True)
class LoadReport:
    """What a load did.

    Attributes:
        loaded: names of the module that got stored values.
        new: names of the module that the file has no (fitting) values for.
        unused: names of the file that found no place.
        wrong_shape: of those in `new`, what the file had instead.
        nbytes: size of what was loaded.
    """

    loaded: tuple[str, ...]
    new: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    wrong_shape: Mapping[str, str] = field(default_factory=dict)
    nbytes: int = 0

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded ({self.nbytes / 1e6:,.1f} MB)"]
        parts += [f"new: {', '.join(self.new)}"] if self.new else []
        parts += [f"unused: {', '.join(self.unused)}"] if self.unused else []
        return "; ".join(parts)


def load_into(
    module: nn.Module,
    weights: Mapping[str, LazyTensor | torch.Tensor],
    *,
    partial: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    copy: bool = False,
    init: Callable[[nn.Module], None] | None = None,
    fresh: Collection[str] = (),
) -> LoadReport:
    """Make `weights` the parameters and persistent buffers of `module`.

    Tied parameters stay tied, whichever of their names the file has; names that the file ties and
    the module does not get memory of their own. A module with non-persistent buffers (tables,
    masks) computes them in a method `reset_buffers()`, which assigns each anew.

    Args:
        module: built on the meta device, or anywhere else.
        weights: the module's names to tensors: a `WeightsFile`, `MappedWeights` or a state dict,
            whose memory the module then shares (unless `copy`).
        partial: load what fits; what the module has beyond that is initialised by `init`, or, in a
            module that is not on meta, stays as it is.
        dtype: cast floating-point tensors to this; None keeps what is stored.
        device: where the tensors shall be; None is the CPU for what is on meta, else where it is.
        copy: own the memory instead of viewing the file: for a file that may be shortened while in
            use, or a disk that should be read at once.
        init: with `partial`, called for each module that directly owns a new tensor, when that has
            memory; by default its `reset_parameters`. What it overwrites is loaded afterwards.
        fresh: names that may be new without `partial`.

    Returns:
        What was loaded, what is new and what found no place.

    Raises:
        WeightsError: all missing, unexpected and misshapen tensors in one (unless `partial`), or
            tied names with different values, before `module` is touched; or a tensor that nothing
            gives values.
    """
    slots = module_slots(module)
    fitted = fit(slots, weights)
    fitted.missing = [name for name in fitted.missing if name not in fresh]
    if fitted.faults and not partial:
        raise WeightsError(complaint(type(module).__name__, slots, fitted, weights))
    where = torch.device(device) if device is not None else None
    tensors = _read_all(slots, fitted, dtype, where, copy)
    new = [slot for name, slot in slots.items() if name not in tensors]
    _initialise(new, init, dtype or _one_dtype(tensors.values()), where)
    for name, tensor in tensors.items():
        slots[name].put(tensor)
    _reset_buffers(module, where)
    _refuse_meta(module)
    return LoadReport(
        loaded=tuple(tensors),
        new=tuple(slot.name for slot in new),
        unused=tuple(fitted.unexpected),
        wrong_shape=fitted.wrong,
        nbytes=sum(tensor.nbytes for tensor in tensors.values()),
    )


def _read_all(
    slots: Mapping[str, Slot],
    fitted: Fit,
    dtype: torch.dtype | None,
    device: torch.device | None,
    copy: bool,
) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    taken: set[int] = set()
    for name, lazy in fitted.good.items():
        old = slots[name].tensor
        tensor = _read(lazy, dtype, device or _home(old), copy)
        # Two parameters that are not tied must not share memory, or training one changes the other.
        if tensor.numel() and tensor.data_ptr() in taken:
            tensor = tensor.clone()
        taken.add(tensor.data_ptr())
        tensors[name] = tensor
    return tensors


def _read(
    lazy: LazyTensor, dtype: torch.dtype | None, device: torch.device, copy: bool
) -> torch.Tensor:
    cast = dtype if dtype is not None and _is_float(lazy.dtype) else getattr(torch, lazy.dtype)
    if isinstance(lazy, MemoryTensor):
        return lazy.tensor.to(device, cast, copy=copy).contiguous()
    if device.type != "cpu":
        return lazy.scratch().to(device, cast)
    name = str(cast).removeprefix("torch.")
    if name != lazy.dtype:
        return owned(lazy.scratch(), name)
    return lazy.read(copy=True) if copy else lazy.view()


def _initialise(
    new: list[Slot],
    init: Callable[[nn.Module], None] | None,
    dtype: torch.dtype | None,
    device: torch.device | None,
) -> None:
    """Give memory to the tensors that the file does not have, then let their modules fill it."""
    owners: dict[nn.Module, list[str]] = {}
    for slot in new:
        if slot.tensor.is_meta:
            owners.setdefault(slot.places[0][0], []).append(slot.name)
            slot.put(_empty(slot.tensor, dtype, device))
        elif device is not None:
            slot.put(slot.tensor.detach().to(device))
    for owner, names in owners.items():
        # An initialiser writes to all tensors of its module; the stored ones are put in later.
        for key, old in owner._parameters.items():
            if old is not None and old.is_meta:
                owner._parameters[key] = nn.Parameter(_empty(old, dtype, device), False)
        for key, table in owner._buffers.items():
            computed = key in owner._non_persistent_buffers_set
            if table is not None and table.is_meta and not computed:
                owner._buffers[key] = _empty(table, dtype, device)
        reset: Any = init or getattr(owner, "reset_parameters", None)
        if reset is None:
            raise WeightsError(
                f"Nothing initialises {', '.join(names)}: {type(owner).__name__} has no "
                "reset_parameters(), so pass init=."
            )
        with torch.no_grad():
            init(owner) if init else reset()


def _reset_buffers(module: nn.Module, device: torch.device | None) -> None:
    for part in module.modules():
        tables = _tables(part)
        reset = getattr(part, "reset_buffers", None)
        if reset is not None and any(table.is_meta for table in tables.values()):
            with torch.device(device or "cpu"):
                reset()
        for name, table in _tables(part).items():
            if device is not None and not table.is_meta:
                part._buffers[name] = table.to(device)


def _tables(part: nn.Module) -> dict[str, torch.Tensor]:
    """The non-persistent buffers of one module."""
    computed = part._non_persistent_buffers_set
    return {k: t for k, t in part._buffers.items() if k in computed and t is not None}


def _refuse_meta(module: nn.Module) -> None:
    tensors = (*module.named_parameters(), *module.named_buffers())
    empty = [name for name, tensor in tensors if tensor.is_meta]
    if empty:
        raise WeightsError(
            f"{type(module).__name__} has tensors without values after loading "
            f"({', '.join(empty[:10])}); give their module a reset_buffers() that assigns them."
        )


def _empty(
    like: torch.Tensor, dtype: torch.dtype | None, device: torch.device | None
) -> torch.Tensor:
    cast = dtype if dtype is not None and like.is_floating_point() else like.dtype
    return torch.empty(like.shape, dtype=cast, device=device or "cpu")


def _home(tensor: torch.Tensor) -> torch.device:
    return torch.device("cpu") if tensor.is_meta else tensor.device


def _is_float(dtype: str) -> bool:
    return getattr(torch, dtype).is_floating_point


def _one_dtype(tensors: Iterable[torch.Tensor]) -> torch.dtype | None:
    """The floating-point dtype that all tensors have, if it is only one."""
    found = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    return found.pop() if len(found) == 1 else None
