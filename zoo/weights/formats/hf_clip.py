"""transformers' CLIP: the vision tower, alone or in a file with the text tower (`clip`)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.weights.formats import Format
from zoo.weights.formats._encoder import (
    OPENAI,
    attention_rows,
    has,
    layer_rows,
    read_encoder,
    read_pictures,
    write_encoder,
)
from zoo.weights.formats._preprocessor import PREPROCESSOR, write_preprocessor
from zoo.weights.formats._vit import checked
from zoo.weights.formats.keys import Keys
from zoo.weights.map import Drop, Inverse, Rename, Squeeze, WeightMap

__all__ = ["FORMAT"]

PROJECTED = "CLIPVisionModelWithProjection"
TOWER = "vision_model."
USUAL = {"resample": 3, "do_center_crop": True, **OPENAI}


def read_config(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of the vision tower; the space shared with text is its `projection`."""
    keys = Keys(content)
    written = keys.architecture("CLIPModel", "CLIPVisionModel", PROJECTED)
    tower, both = keys, content.get("model_type") == "clip"
    if both:
        tower = keys.section("vision_config")
        older = keys.take("vision_config_dict", {}, dict)  # where it stands too, it wins
        pictures = {PREPROCESSOR: keys.take(PREPROCESSOR, {}, dict)}
        tower.content = {**tower.content, **older, **pictures}
        keys.ignore(
            "text_config", "text_config_dict", "logit_scale_init_value", "tie_word_embeddings"
        )
    projection = tower.take("projection_dim", 512)
    if both:
        projection = keys.take("projection_dim", 512)
    projected = both or written == PROJECTED
    projected |= not written and has(names, "visual_projection.weight")
    backbone = read_encoder(tower, eps=1e-5)
    backbone["attention"]["dropout"] = tower.take("attention_dropout", 0.0)
    backbone["feedforward"] = {
        "hidden": tower.take("intermediate_size", 3072),
        "activation": tower.activation("hidden_act", "quick_gelu"),
    }
    backbone |= {"embedding_norm": True, "final_norm": False}
    tower.ignore("dropout", "tie_word_embeddings")  # of 2021, read by no code
    node = {
        "tokenizer": {**read_pictures(tower, 32, USUAL), "bias": False},
        "backbone": backbone,
        "pool_norm": True,
        "projection": projection if projected else None,
        "classes": 0,
    }
    for part in (tower, keys):
        part.ignore_generic()
        part.finish(FORMAT.name)
    return node


def write_config(config: Any) -> dict[str, Any]:
    """Returns the config.json of a vision tower; raises ConfigError naming what it cannot say."""
    backbone = config.backbone
    name = PROJECTED if config.projection else "CLIPVisionModel"
    public = write_encoder(config, name, "clip_vision_model") | {
        "intermediate_size": backbone.feedforward.inner(backbone.width),
        "attention_dropout": getattr(backbone.attention, "dropout", 0.0),
        "projection_dim": config.projection or 512,
        PREPROCESSOR: write_preprocessor(config.tokenizer, "CLIPImageProcessor"),
    }
    return checked(FORMAT, config, public)


def weight_map(config: Any) -> WeightMap:
    """Returns the table of a file; the text tower is dropped."""
    prefix = TOWER if config.projection else ""
    layer = prefix + "encoder.layers.*."
    rows = [
        Rename(prefix + "embeddings.class_embedding", "prefix.class_token", Inverse(Squeeze(0))),
        Rename(prefix + "embeddings.patch_embedding.weight", "tokenizer.weight"),
        Rename(prefix + "embeddings.position_embedding.weight", "backbone.positions.0.weight"),
        Rename(prefix + "pre_layrnorm.", "backbone.embedding_norm."),  # their spelling
        *attention_rows(
            layer + "self_attn.",
            "backbone.layers.*.attention.",
            ("q_proj", "k_proj", "v_proj", "out_proj"),
        ),
        *layer_rows(layer, ("layer_norm1", "layer_norm2"), ("mlp.fc1", "mlp.fc2")),
        Rename(prefix + "post_layernorm.", "pool.norm."),
        Drop(prefix + "embeddings.position_ids"),
        Drop("text_model.", "text_projection.", "logit_scale"),
    ]
    if config.projection:
        rows.append(Rename("visual_projection.", "pool.projection."))
    return WeightMap(rows, prefixes=[TOWER])


FORMAT = Format(
    name="transformers-clip",
    kind="vit",
    read_config=read_config,
    write_config=write_config,
    weight_map=weight_map,
    model_types=("clip", "clip_vision_model"),
    companions=(PREPROCESSOR,),
)
