"""timm's own layout of a stored model: its config.json and its names of tensors. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats.keys import Keys
from zoo.weights.map import MappedWeights, Rename, WeightMap
from zoo_timm.plugin import RESIZE, keys
from zoo_timm.schema import HAVE_KEYS, TimmBackboneConfig

if TYPE_CHECKING:
    import torch

    from zoo.weights.lazy import LazyTensor

__all__ = ["FORMAT"]

# What timm writes beside what we read, none of which changes what is computed: where the weights
# came from, how to train on, and another size and crop that may test better.
HARMLESS = (
    "architecture", "classifier", "custom_load", "description", "file", "first_conv",
    "fixed_input_size", "global_pool", "hf_hub_filename", "hf_hub_id", "license", "min_input_size",
    "notes", "num_features", "origin_url", "paper_ids", "paper_name", "pool_size", "source", "tag",
    "test_crop_pct", "test_input_size", "test_pool_size", "url",
)  # fmt: skip


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns the keys of our node for timm's config.json (as timm.models.push_to_hf_hub writes
    it). Raises: ConfigError for what it does not know."""
    public = Keys(content)
    # Before 2023, timm wrote what it now calls pretrained_cfg without that name.
    cfg = public.section("pretrained_cfg") if "pretrained_cfg" in public else public
    given: dict[str, Any] = {
        "interpolation": cfg.take("interpolation", "bicubic"),
        "crop_pct": cfg.take("crop_pct", 0.875),
        "crop_mode": cfg.take("crop_mode", "center"),
        "input_size": cfg.take("input_size", [3, 224, 224]),
        "mean": cfg.take("mean", [0.485, 0.456, 0.406]),
        "std": cfg.take("std", [0.229, 0.224, 0.225]),
        "num_classes": public.take("num_classes", cfg.take("num_classes", 1000)),
    }
    if given["crop_mode"] not in RESIZE or len(given["input_size"]) != 3:
        raise ConfigError("config.json: 'crop_mode' or 'input_size' is none of timm's.")
    node: dict[str, Any] = {"architecture": public.take("architecture", ""), "options": {}}
    for key, value in keys(given).items():
        _place(node, key, value)
    for key, value in public.take("model_args", {}).items():
        if key == "img_size" and isinstance(value, int):
            value = [value, value]
        if value is not None:
            _place(node, HAVE_KEYS.get(key, f"options.{key}"), value)
    labels = public.take("label_names", cfg.take("label_names", cfg.take("labels", [])))
    words = public.take("label_descriptions", cfg.take("label_descriptions", {}))
    if len(labels) == node["classes"]:
        node["labels"] = [str(words.get(str(label), label)) for label in labels]
    for part in (public, cfg):
        part.only("label_offset", 0, None)  # a table with a row that no class has
        part.ignore(*HARMLESS)
        part.finish("timm/native")
    return node


def _place(node: dict[str, Any], key: str, value: Any) -> None:
    section, dot, inner = key.partition(".")
    if dot:
        node.setdefault(section, {})[inner] = value
    else:
        node[key] = value


def write_config(config: TimmBackboneConfig) -> dict[str, Any]:
    """Returns timm's config.json, with which timm.create_model("local-dir:…") opens the folder."""
    pixels = config.tokenizer
    modes = {ours: theirs for theirs, ours in RESIZE.items()}
    arguments = dict(config.options)
    chosen = {"drop_rate": config.dropout, "drop_path_rate": config.drop_path}
    arguments |= {key: value for key, value in chosen.items() if value}
    if config.pool is not None:
        arguments["global_pool"] = config.pool
    cfg = {
        "input_size": [pixels.channels, *pixels.image],
        "custom_load": False,
        "num_classes": config.classes,
        "crop_mode": modes[pixels.resize],
        "crop_pct": pixels.crop,
        "interpolation": pixels.interpolation,
        "mean": list(pixels.mean),
        "std": list(pixels.std),
    }
    public = {
        "architecture": config.architecture,
        "num_classes": config.classes,
        "pretrained_cfg": cfg,
        "model_args": arguments,
    }
    return public | ({"label_names": list(config.labels)} if config.labels else {})


class NativeMap(WeightMap):
    """timm's names below `network.`; files of an older layout are first read as timm reads them."""

    def __init__(self, config: TimmBackboneConfig) -> None:
        super().__init__([Rename("", "network.")])
        self.config = config

    def load(self, source: Mapping[str, LazyTensor | torch.Tensor]) -> MappedWeights:
        """`source` under our names. A file that does not hold exactly the architecture's tensors,
        but that timm knows how to convert, is converted, in memory."""
        from zoo_timm.convert import convert

        return super().load(convert(self.config, source))


FORMAT = Format(
    name="timm/native",
    kind="timm/backbone",
    read_config=read_config,
    write_config=write_config,
    weight_map=NativeMap,
    architectures=(r"\w+",),
)
