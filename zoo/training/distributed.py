"""Several processes as one: who this process is, sums over all, and how a model is spread over
them."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from zoo.errors import ConfigError
from zoo.models.base import as_device
from zoo.training.schema import TrainerConfig

__all__ = ["World", "pick_device", "spread", "unwrap"]


@dataclass
class World:
    """The processes of a run, as torchrun (or anything that sets RANK, WORLD_SIZE, LOCAL_RANK)
    started them."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    owns_group: bool = False  # whether `close` ends the process group

    @classmethod
    def start(cls, config: TrainerConfig) -> World:
        """Joins the other processes, if there are any. Raises ConfigError for a device that is
        not there."""
        size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        device = pick_device(config.device, int(os.environ.get("LOCAL_RANK", 0)))
        sharded = config.strategy == "fsdp2"
        if config.strategy == "none" and size > 1:
            raise ConfigError(
                f"trainer.strategy: 'none' would train a model in each of {size} processes; "
                "use ddp or fsdp2."
            )
        owns = False
        if (size > 1 or sharded) and not dist.is_initialized():
            backend = "gloo" if device.type == "cpu" else f"cpu:gloo,{device.type}:nccl"
            alone: dict[str, Any] = (
                {"store": dist.HashStore(), "rank": 0, "world_size": 1} if size == 1 else {}
            )
            dist.init_process_group(backend, timeout=timedelta(minutes=config.timeout), **alone)
            owns = True
        if device.type == "cuda":
            torch.cuda.set_device(device)
        return cls(rank, size, device, owns)

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Returns the sum of a tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all(self, flag: bool) -> bool:
        """Returns whether `flag` is true in every process."""
        return int(self.sum(torch.tensor(int(flag)))) == self.size

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, by rank, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """Returns the main process's value."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def barrier(self) -> None:
        """Waits for the others."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leaves the group, if `start` made it."""
        if self.owns_group and dist.is_initialized():
            dist.destroy_process_group()


def pick_device(name: str, index: int = 0) -> torch.device:
    """Returns the device of a name; `auto` is the accelerator of this machine, if it has one."""
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        name = found.type if found is not None else "cpu"
    if name == "cuda" and (count := torch.cuda.device_count()):
        name = f"cuda:{index % count}"
    return as_device(name)


# -- spreading a model -----------------------------------------------------------------------------


def spread(model: nn.Module, world: World, config: TrainerConfig) -> nn.Module:
    """Returns what is called in training: the model itself, in DDP, or sharded in place by FSDP2.

    FSDP2 shards every module of `model.fsdp_units()` as a unit, if the model has that method,
    and the rest together.
    """
    if config.strategy == "fsdp2":  # moves to the device what each process keeps, unit by unit
        return _shard(model, world, config)
    model.to(world.device)
    if world.size > 1:
        ids = None if world.device.type == "cpu" else [world.device]
        return nn.parallel.DistributedDataParallel(
            model, device_ids=ids, find_unused_parameters=config.unused_parameters
        )
    return model


def _shard(model: nn.Module, world: World, config: TrainerConfig) -> nn.Module:
    # The warning is about writing into a model's output in place, which no objective does.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    for parameter in model.parameters():  # loaded ones may be views that FSDP2 does not take
        parameter.data = parameter.data.contiguous()
    mesh = init_device_mesh(world.device.type, (world.size,))
    inner = outer = MixedPrecisionPolicy()
    if config.precision == "bf16":
        # Inputs are cast once, at the door: a unit gets activations that are bf16 already, beside
        # masks and
        # caches that are shared between units and must stay the objects that they are.
        dtypes: dict[str, Any] = {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32}
        inner = MixedPrecisionPolicy(**dtypes, cast_forward_inputs=False)
        outer = MixedPrecisionPolicy(**dtypes)
    units = getattr(model, "fsdp_units", None)
    for unit in units() if units is not None else []:
        fully_shard(unit, mesh=mesh, mp_policy=inner)
    fully_shard(model, mesh=mesh, mp_policy=outer)
    return model


def unwrap(model: nn.Module) -> Any:
    """Returns the model inside DDP; a model as it is otherwise. (Typed Any: each kind of model has
    attributes of its own, and an objective's `check` has asked for them.)"""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


@contextlib.contextmanager
def synchronised(model: nn.Module, now: bool) -> Iterator[None]:
    """Adds up gradients over the processes in the backward passes inside, if `now`, and only
    keeps them otherwise."""
    if isinstance(model, nn.parallel.DistributedDataParallel) and not now:
        with model.no_sync():
            yield
        return
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)
    yield


def reshard(model: nn.Module) -> None:
    """Frees the whole parameters that FSDP2 keeps after a forward pass that no backward pass
    follows."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def local(tensor: Tensor) -> Tensor:
    """Returns this process's share of a sharded tensor; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
