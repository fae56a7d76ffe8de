"""A timm architecture as a zoo vision model: the same outputs, verbs and loading as our own."""

# b batch, c channels, h w pixels, r s rows and columns of features, n tokens, d width, k classes

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, UnknownName
from zoo.models.vit.model import ImageOutput
from zoo.models.vit.verbs import ImageVerbs
from zoo.registry import build
from zoo.registry.suggest import hint
from zoo_timm.schema import TimmBackboneConfig

__all__ = ["TimmBackbone", "TimmOutput", "create_network"]

Layers = int | Sequence[int] | None  # which of timm's feature levels


class TimmBackbone(nn.Module, ImageVerbs):
    """Any timm architecture; `network` is timm's own module."""

    network: Any

    def __init__(self, config: TimmBackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = build(config.tokenizer)
        self.network = create_network(config)
        self._renewed: set[str] = set()
        for path, module in self._owners():
            module.reset_parameters = partial(self._renew, path)
            if hasattr(module, "init_non_persistent_buffers"):
                module.reset_buffers = partial(_reset_buffers, module)

    def forward(self, pixels: Tensor) -> ImageOutput:  # b c h w
        features = self.network.forward_features(pixels)
        logits = self.network.forward_head(features) if self.config.classes else None
        return TimmOutput(logits, self._tokens(features), partial(self._pool, features))

    def _tokens(self, features: Any) -> Tensor:
        """Returns timm's features, of which there are several layouts, as tokens (b n d)."""
        if isinstance(features, (list, tuple)):  # several scales: the last is the coarsest
            features = features[-1]
        if features.ndim == 4 and getattr(self.network, "output_fmt", "NCHW") == "NHWC":
            return features.flatten(1, 2)  # b r s d
        if features.ndim == 4:
            return features.flatten(2).transpose(1, 2)  # b d r s
        width = self.network.feature_info[-1]["num_chs"]
        swapped = features.shape[1] == width != features.shape[2]
        return features.transpose(1, 2) if swapped else features

    def _pool(self, features: Any) -> Tensor:
        """Returns what the classifier reads, (b d)."""
        try:
            return self.network.forward_head(features, pre_logits=True)
        except (NotImplementedError, TypeError):
            raise ConfigError(
                f"timm's {self.config.architecture} does not pool; use hidden or patch_tokens."
            ) from None

    def patch_tokens(self, pixels: Tensor, layer: Layers = None) -> Tensor:
        """Returns the outputs (b n d) over the picture, row by row, without prefix tokens.

        `layer` counts timm's feature levels as Python does: blocks of a transformer, stages of a
        pyramid; -1 is the last one's output; those of several stand side by side, where they have
        as many patches. None is the last one's after the final norm, if it stands before the
        pooling.
        """
        levels = self._levels(layer)
        order = sorted(set(levels))  # timm gives them in its own order, whatever was asked
        ask = partial(
            self.network.forward_intermediates,
            pixels,
            indices=order,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        try:
            maps = ask(norm=layer is None)
        except AssertionError:  # Hiera's norm reads the pooled vector
            maps = ask(norm=False)
        chosen = [maps[order.index(level)] for level in levels]
        return torch.cat(chosen, dim=1).flatten(2).transpose(1, 2)

    def patch_width(self, layer: Layers = None) -> int:
        """Returns the width d of what `patch_tokens` gives."""
        return sum(self.network.feature_info[level]["num_chs"] for level in self._levels(layer))

    def patch_grid(self, height: int, width: int, layer: Layers = None) -> tuple[int, int]:
        """Returns rows and columns of `patch_tokens` of a picture of a size."""
        step = self.network.feature_info[self._levels(layer)[0]]["reduction"]
        return math.ceil(height / step), math.ceil(width / step)

    def _levels(self, layer: Layers) -> list[int]:
        """Returns the numbers of levels, from 0; raises ConfigError for those that are not there or
        are of different sizes."""
        info = self.network.feature_info
        count = len(info)
        asked = [-1] if layer is None else [layer] if isinstance(layer, int) else list(layer)
        for level in asked:
            if not -count <= level < count:
                raise ConfigError(f"layer: {level} is none of the {count} levels.")
        if len({info[level]["reduction"] for level in asked}) > 1:
            raise ConfigError(f"layer: {asked} are levels of different sizes.")
        return [level % count for level in asked]

    def attention_maps(self, images: Any, layer: int = -1, batch_size: int = 32) -> Tensor:
        """Raises ConfigError: timm's modules do not show their attention weights."""
        raise ConfigError("timm's models do not show where they look; take one of zoo's own.")

    def fsdp_units(self) -> list[nn.Module]:
        """Returns what is sharded as a unit: the blocks of each stage."""
        units: list[nn.Module] = []
        for child in self.network.children():
            several = isinstance(child, (nn.Sequential, nn.ModuleList))
            units += child.children() if several else [child]
        return [unit for unit in units if next(unit.parameters(), None) is not None]

    # -- new weights -------------------------------------------------------------------------------

    def reset_parameters(self) -> None:
        """Fills the network with new weights: those of a new network.

        timm initialises a network as a whole while it is built, and many of its modules cannot be
        asked alone. With one seed, these are the weights that timm.create_model gives.
        """
        fresh = self._fresh()
        for path, module in self._owners():
            _copy_own(fresh.get_submodule(path), module)
        # Whoever walks over modules() comes to the network's own ones next, which are done.
        self._renewed = {path for path, _ in self._owners()}

    def _renew(self, path: str) -> None:
        """Gives one module of the network new weights, if `reset_parameters` did not just do so."""
        if path in self._renewed:
            self._renewed.discard(path)
        else:
            _copy_own(self._fresh().get_submodule(path), self.network.get_submodule(path))

    def _owners(self) -> list[tuple[str, Any]]:
        """Returns the network's modules that hold tensors themselves."""
        modules = self.network.named_modules()
        return [(path, m) for path, m in modules if m._parameters or m._buffers]

    def _fresh(self) -> nn.Module:
        with torch.device("cpu"):
            return create_network(self.config)


class TimmOutput(ImageOutput):
    """What a timm model gives. Its `pooled` is computed when it is read: timm pools and classifies
    in one call, and doing that twice in training would move running statistics twice."""

    def __init__(self, logits: Tensor | None, hidden: Tensor, pool: Callable[[], Tensor]) -> None:
        self.logits, self.hidden, self.distillation_logits = logits, hidden, None
        self._pool = pool
        self._pooled: Tensor | None = None

    @property
    def pooled(self) -> Tensor:  # type: ignore[override]  # b d
        """What the head reads: the features of the picture."""
        if self._pooled is None:
            self._pooled = self._pool()
        return self._pooled


def create_network(config: TimmBackboneConfig, **loading: Any) -> nn.Module:
    """Returns timm's module of a config, with timm's new weights or, if `loading` says so, stored
    ones.

    Raises: UnknownName for no architecture of timm's, ConfigError for what it does not take.
    """
    import timm

    name = config.architecture
    if not timm.is_model(name):
        raise UnknownName(
            f"timm {timm.__version__} has no architecture {name!r}.{hint(name, timm.list_models())}"
        )
    arguments: dict[str, Any] = {
        "num_classes": config.classes,
        "in_chans": config.tokenizer.channels,
        "global_pool": config.pool,
        "drop_rate": config.dropout or None,
        "drop_path_rate": config.drop_path or None,
        **config.options,
    }
    default = timm.get_pretrained_cfg(name)
    if default is not None and default.fixed_input_size:
        arguments["img_size"] = tuple(config.tokenizer.image)
    try:
        return timm.create_model(name, **arguments, **loading)
    except (TypeError, ValueError, KeyError, AssertionError, NotImplementedError) as error:
        given = ", ".join(f"{k}={v!r}" for k, v in arguments.items() if v is not None)
        reason = str(error) or type(error).__name__
        raise ConfigError(f"timm cannot build {name} with {given}: {reason}") from error


def _copy_own(source: nn.Module, target: nn.Module) -> None:
    """Copies the parameters and buffers that belong to a module itself."""
    for held, kept in (
        (source._parameters, target._parameters),
        (source._buffers, target._buffers),
    ):
        for key, tensor in held.items():
            mine = kept[key]
            if tensor is not None and mine is not None:
                mine.data.copy_(tensor)


def _reset_buffers(module: Any) -> None:
    """Computes the tables of one module that no file stores; called with the device as context."""
    for key in module._non_persistent_buffers_set:
        table = module._buffers.get(key)
        if table is not None and table.is_meta:  # timm fills some of them in place
            module._buffers[key] = torch.empty(table.shape, dtype=table.dtype)
    module.init_non_persistent_buffers()
