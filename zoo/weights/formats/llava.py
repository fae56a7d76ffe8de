"""LLaVA as its authors store it (haotian-liu/LLaVA): a Llama or Mistral with the projector, and
since 1.6 the tower, under names of its own. Files of the projector alone are read too.

| theirs                              | what                                            |
|-------------------------------------|-------------------------------------------------|
| `model.…`, `lm_head.weight`         | the language model, as transformers stores it   |
| `model.mm_projector.`               | `linear`: one matrix                            |
| `model.mm_projector.0.`, `.2.`, …   | `mlp2x_gelu`: matrices with a GELU between them |
| `model.vision_tower.vision_tower.…` | the tower, where it was trained too             |
| `model.image_newline`               | end of a row of tiles (1.6)                     |

A file without the tower names the repository that it is from; the node's `bases` say which of ours
that is.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from typing import Any

from zoo.errors import ConfigError
from zoo.registry.folders import names as node_names
from zoo.registry.nodes import read_mapping
from zoo.weights.formats import Format
from zoo.weights.formats._vision_language import (
    projector_rows,
    read_text,
    text_map,
    tower_map,
    write_text,
)
from zoo.weights.formats.keys import Keys, show
from zoo.weights.map import Rename, WeightMap

NAME = "llava"
TOWER = "model.vision_tower.vision_tower."
CLASSES = {
    "LlavaLlamaForCausalLM": "llama",
    "LlavaMistralForCausalLM": "mistral",
    "LlavaQwenForCausalLM": "qwen2",
}
TYPES = {"llama": "llava_llama", "mistral": "llava_mistral", "qwen2": "llava_qwen"}
CHATS = {"llama": "llava-v1", "mistral": "mistral-instruct", "qwen2": "chatml"}
# How it was trained, and what other code of theirs asks.
SILENT = (
    "freeze_mm_mlp_adapter", "freeze_mm_vision_resampler", "image_crop_resolution",
    "image_split_resolution", "mm_hidden_size", "mm_projector_lr", "mm_use_im_patch_token",
    "mm_vision_tower_lr", "pretrain_mm_mlp_adapter", "pretraining_tp", "tokenizer_model_max_length",
    "tokenizer_padding_side", "tune_mm_mlp_adapter", "tune_mm_vision_resampler", "tuned_mm_mlp",
    "unfreeze_mm_vision_tower", "use_mm_proj", "vision_tower",
)  # fmt: skip


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our node of their config.json; `names` say whether the file holds the tower."""
    keys = Keys(content)
    written = keys.architecture(*CLASSES) or next(iter(CLASSES))
    kind = CLASSES[written]
    keys.ignore(*SILENT)
    ends = keys.take("mm_use_im_start_end", False)
    keys.only("mm_resampler_type", None)
    keys.only("mm_vision_select_feature", "patch", None)
    tower = keys.take("mm_vision_tower", content.get("vision_tower"), str)
    if not tower:
        raise ConfigError(f"{keys.where}: 'mm_vision_tower' names no vision tower.")
    shape = keys.take("image_aspect_ratio", "square", str)
    if shape not in ("square", "pad", "anyres"):
        raise ConfigError(f"{keys.where}: 'image_aspect_ratio' = {show(shape)} is not supported.")
    tiles = keys.take("image_grid_pinpoints", [], list)
    merge = ("spatial_unpad",) if shape == "anyres" else ("flat", "spatial_unpad", None)
    keys.only("mm_patch_merge_type", *merge)
    layer = keys.take("mm_vision_select_layer", -2)
    adapter = _read_adapter(keys)
    text = read_text({**keys.rest(), "model_type": kind}) | {"tokenizer": _words(kind)}
    base = tower_named(tower)
    vision: dict[str, Any] = {"name": base, "projection": None, "classes": 0}
    if shape == "pad":
        vision["tokenizer"] = {"resize": "pad"}
    within = any(name.startswith("model.vision_tower.") for name in names)
    return {
        "vision": vision,
        "adapter": adapter,
        "text": text,
        "layer": layer - 1 if layer > 0 else layer,
        "before": ["<im_start>"] if ends else [],
        "after": ["<im_end>"] if ends else [],
        # theirs are (width, height)
        "tiles": [size[::-1] for size in tiles] if shape == "anyres" else [],
        **({} if within else {"bases": {"vision": base}}),
    }


def _read_adapter(keys: Keys) -> dict[str, Any]:
    said = keys.take("mm_projector_type", "linear")
    if said == "linear":
        return {"kind": "linear"}
    found = re.fullmatch(r"mlp([1-9])x_gelu", said)
    if not found:
        raise ConfigError(
            f"{keys.where}: 'mm_projector_type' = {show(said)} is not supported (only 'linear' and "
            "'mlp2x_gelu' with any number)."
        )
    return {"kind": "mlp", "depth": int(found[1])}


def _words(kind: str) -> dict[str, str]:
    """Returns the tokenizer of a language model with the template that LLaVA was trained on."""
    return {"name": "qwen2" if kind == "qwen2" else "llama", "chat": CHATS[kind]}


@cache
def towers() -> dict[str, str]:
    """Returns repository -> our name and tag of every vision tower that transformers stores."""
    found = {}
    for name in node_names("model"):
        if "/" in name:
            continue
        node = read_mapping("model", name)
        if node.get("kind") == "vit":
            for tag, weights in (node.get("weights") or {}).items():
                if str(weights.get("format")).startswith("transformers-"):
                    found[weights["repo"]] = f"{name}.{tag}"
    return found


def tower_named(repo: str) -> str:
    """Returns our name of a public vision tower; raises ConfigError for one that has none."""
    if repo not in towers():
        raise ConfigError(
            f"config.json: 'mm_vision_tower' = {show(repo)} is no tower of ours; known: "
            f"{', '.join(sorted(t for t in towers() if 'clip' in t))}."
        )
    return towers()[repo]


def write_config(config: Any) -> dict[str, Any]:
    """Returns their config.json; raises ConfigError for what their code cannot say."""
    text, vision, adapter = write_text(config.text), config.vision, config.adapter
    kind = text["model_type"]
    classes = {model_type: name for name, model_type in CLASSES.items()}
    if kind not in classes:
        raise ConfigError(f"text: format {NAME!r} has no class for {kind}.")
    repos = [tag.repo for tag in vision.weights.values() if tag.repo in towers()]
    if vision.zoo_kind != "vit" or not repos:
        raise ConfigError(f"vision: format {NAME!r} names a public tower, and this one is none.")
    if config.class_token or not isinstance(config.layer, int):
        key = "class_token" if config.class_token else "layer"
        raise ConfigError(f"{key}: format {NAME!r} reads the patches of one block.")
    around = config.before, config.after
    if around not in (([], []), (["<im_start>"], ["<im_end>"])):
        raise ConfigError(f"before: format {NAME!r} knows <im_start> and <im_end> alone.")
    public = {
        **text,
        "architectures": [classes[kind]],
        "model_type": TYPES[kind],
        "mm_projector_type": _adapter_word(adapter),
        "mm_hidden_size": vision.backbone.width,
        "mm_vision_tower": repos[0],
        "mm_vision_select_layer": config.layer + (config.layer >= 0),
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": bool(config.before),
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "image_aspect_ratio": "pad" if vision.tokenizer.resize == "pad" else "square",
    }
    if config.tiles:
        sizes = [size[::-1] for size in config.tiles]
        public |= {"image_aspect_ratio": "anyres", "image_grid_pinpoints": sizes}
        public["mm_patch_merge_type"] = "spatial_unpad"
    return public


def _adapter_word(adapter: Any) -> str:
    plain = adapter.pool == 1 and adapter.bias
    if adapter.zoo_kind == "linear" and plain:
        return "linear"
    if adapter.zoo_kind == "mlp" and plain and not adapter.hidden and adapter.activation == "gelu":
        return f"mlp{adapter.depth}x_gelu"
    raise ConfigError(
        f"adapter: format {NAME!r} has no word for this {adapter.zoo_kind}, only for 'linear' and "
        "an 'mlp' with a GELU."
    )


def weight_map(config: Any) -> WeightMap:
    """Returns the table of a file."""
    projector = "model.mm_projector."
    if config.adapter.zoo_kind == "linear":
        rows = [Rename(projector, "adapter.linear.")]
    else:
        depth = getattr(config.adapter, "depth", 0)
        rows = projector_rows([f"{projector}{2 * i}." for i in range(depth)])
    if config.tiles:
        rows.append(Rename("model.image_newline", "tiles.newline"))
    return WeightMap(rows) + tower_map(config.vision, TOWER) + text_map(config.text, "")


FORMAT = Format(
    NAME,
    "vision-language",
    read_config,
    write_config,
    weight_map,
    model_types=tuple(TYPES.values()),
    classes=tuple(CLASSES),
)
