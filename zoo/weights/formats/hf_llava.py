"""transformers' LLaVA (1.5) and LLaVA-NeXT (1.6): a vision tower, a projector of two matrices and a
language model, each as its own family stores it, under a name of its own.

| where     | in hub files of `llava-hf`    | as transformers 5 saves it | in its newest layout    |
|-----------|-------------------------------|----------------------------|-------------------------|
| tower     | `vision_tower.vision_model.`  | `vision_tower.`            | `model.vision_tower.`   |
| projector | `multi_modal_projector.`      | `multi_modal_projector.`   | `model.multi_modal_…`   |
| text      | `language_model.model.`       | `language_model.model.`    | `model.language_model.` |
| head      | `language_model.lm_head.`     | `language_model.lm_head.`  | `lm_head.`              |

All are read; the first is written.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.registry import resolve, to_mapping
from zoo.weights.formats import Format
from zoo.weights.formats._preprocessor import PREPROCESSOR
from zoo.weights.formats._vision_language import (
    projector_rows,
    read_text,
    read_tower,
    text_map,
    tower_map,
    write_pictures,
    write_text,
    write_tower,
)
from zoo.weights.formats.keys import Keys, public_activation, show
from zoo.weights.map import Rename, WeightMap

NAME, NEXT = "transformers-llava", "transformers-llava-next"
PROCESSOR = "processor_config.json"
CLASSES = {NAME: "LlavaForConditionalGeneration", NEXT: "LlavaNextForConditionalGeneration"}
TILES = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]

SPELLINGS = {
    "model.vision_tower.": "vision_tower.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "model.language_model.": "language_model.model.",
    "lm_head.weight": "language_model.lm_head.weight",
    "model.image_newline": "image_newline",
}


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our node of a config.json with `vision_config` and `text_config`."""
    keys = Keys(content)
    keys.ignore_generic()
    tiled = keys.take("model_type", "llava") == "llava_next"
    keys.architecture(CLASSES[NEXT if tiled else NAME])
    vision = read_tower(keys.take("vision_config", {}, dict), keys.take(PREPROCESSOR, {}, dict))
    text = read_text(keys.take("text_config", {}, dict))
    _check_features(keys, vision.get("class_token", True))
    keys.only("tie_word_embeddings", text["tied"], False, None)
    # of processors, which cannot ask the tower how many tokens it gives; of training
    keys.ignore("image_seq_length", PROCESSOR, "ignore_index", "vocab_size", "image_token_id")
    keys.only("use_image_newline_parameter", True, None)
    node = {
        "vision": vision,
        "adapter": {
            "kind": "mlp",
            "activation": keys.activation("projector_hidden_act", "gelu"),
            "bias": keys.take("multimodal_projector_bias", True),
        },
        "text": text,
        "layer": _layer(keys),
        "image_token": keys.take("image_token_index", content.get("image_token_id", 32000)),
        "tiles": keys.take("image_grid_pinpoints", TILES) if tiled else [],
    }
    keys.finish(NEXT if tiled else NAME)
    return node


def _layer(keys: Keys) -> int | list[int]:
    """Returns the block whose output is read, or several; theirs counts the embedding as number
    0."""
    said = keys.take("vision_feature_layer", -2, int, list)
    layers = said if isinstance(said, list) else [said]
    if not layers or any(type(layer) is not int for layer in layers):
        raise ConfigError(f"{keys.where}: 'vision_feature_layer' = {show(said)} names no blocks.")
    if 0 in layers:
        raise ConfigError(f"{keys.where}: 'vision_feature_layer' = 0 reads no block's output.")
    ours = [layer - 1 if layer > 0 else layer for layer in layers]
    return ours if isinstance(said, list) else ours[0]


def _their_layer(layer: int | list[int]) -> int | list[int]:
    """Returns the same in their count."""
    if isinstance(layer, list):
        return [each + (each >= 0) for each in layer]
    return layer + (layer >= 0)


def _check_features(keys: Keys, class_token: bool) -> None:
    """`default` drops the first token, which is right for a tower with a class token alone."""
    how = keys.take("vision_feature_select_strategy", "default")
    if how != ("default" if class_token else "full"):
        raise ConfigError(
            f"{keys.where}: 'vision_feature_select_strategy' = {show(how)} is not supported for a "
            f"tower {'with' if class_token else 'without'} a class token."
        )


def write_config(config: Any) -> dict[str, Any]:
    """Returns config.json and what stands beside it; raises ConfigError for what LLaVA's classes
    cannot say."""
    name = NEXT if config.tiles else NAME
    adapter, vision = config.adapter, config.vision
    if adapter.zoo_kind != "mlp" or adapter.depth != 2 or adapter.hidden or adapter.pool != 1:
        raise ConfigError(f"adapter: format {name!r} holds an mlp of two equal matrices alone.")
    for key in ("class_token", "before", "after"):
        if getattr(config, key):
            raise ConfigError(f"{key}: format {name!r} has no such tokens.")
    if config.layer is None or config.image_token < 0:
        key = "layer" if config.layer is None else "image_token"
        raise ConfigError(f"{key}: format {name!r} needs a number of 0 or more, or a block.")
    strategy = "default" if vision.class_token else "full"
    tokenizer = vision.tokenizer
    public: dict[str, Any] = {
        "architectures": [CLASSES[name]],
        "model_type": "llava_next" if config.tiles else "llava",
        "vision_config": write_tower(vision),
        "text_config": write_text(config.text),
        "image_token_index": config.image_token,
        "projector_hidden_act": public_activation(adapter.activation),
        "multimodal_projector_bias": adapter.bias,
        "vision_feature_layer": _their_layer(config.layer),
        "vision_feature_select_strategy": strategy,
        "tie_word_embeddings": config.text.tied,
        **({"image_grid_pinpoints": config.tiles} if config.tiles else {}),
        PREPROCESSOR: write_pictures(config),
        PROCESSOR: {
            "processor_class": "LlavaNextProcessor" if config.tiles else "LlavaProcessor",
            "image_token": "<image>",
            "patch_size": tokenizer.patch[0],
            "num_additional_image_tokens": vision.prefix_tokens,
            "vision_feature_select_strategy": strategy,
        },
    }
    back = resolve("model", {"kind": "vision-language", **read_config(public, ())})
    for key in ("resize", "image", "patch"):  # the rest is checked by the parts' own formats
        if getattr(back.vision.tokenizer, key) != getattr(tokenizer, key):
            raise ConfigError(
                f"vision.tokenizer.{key}: format {name!r} cannot say "
                f"{show(to_mapping(tokenizer)[key])}."
            )
    return public


def weight_map(config: Any) -> WeightMap:
    """Returns the table of a file."""
    names = [f"multi_modal_projector.linear_{i + 1}." for i in range(2)]
    rows = projector_rows(names)
    if config.tiles:
        rows.append(Rename("image_newline", "tiles.newline"))
    between = WeightMap(rows, spellings=SPELLINGS)
    return (
        between
        + tower_map(config.vision, "vision_tower.")
        + text_map(config.text, "language_model.")
    )


FORMATS = [
    Format(
        name,
        "vision-language",
        read_config,
        write_config,
        weight_map,
        model_types=(model_type,),
        companions=(PREPROCESSOR, PROCESSOR),
    )
    for name, model_type in ((NAME, "llava"), (NEXT, "llava_next"))
]
