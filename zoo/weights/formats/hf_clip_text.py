"""transformers' CLIP: the text tower, alone (`clip_text_model`) or out of a file with both.

A file of both towers (`model_type` clip) asks for its pictures; a node's `format` reads its texts.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._encoder import attention_rows, layer_rows
from zoo.weights.formats._text import checked, holds, need, text_keys
from zoo.weights.formats.keys import public_activation
from zoo.weights.map import Drop, Rename, WeightMap

__all__ = ["FORMAT"]

NAME = "transformers-clip-text"
PROJECTED = "CLIPTextModelWithProjection"
TOWER = "text_model."
LEGACY_END = 2  # files of 2021 say this number and mean the largest token of a text


def read_config(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of a text tower; the space shared with pictures is its `projection`."""
    keys = text_keys(content)
    written = keys.architecture("CLIPTextModel", PROJECTED)
    vocabulary = keys.take("vocab_size", 49408)
    end = keys.take("eos_token_id", 49407)
    keys.ignore("bos_token_id", "pad_token_id", "dropout", "initializer_factor")
    keys.only("tie_word_embeddings", True, False)
    projection = keys.take("projection_dim", 512)
    node = {
        "vocabulary": vocabulary,
        "task": "embed",
        "embed_from": "end",
        "projection": projection if written == PROJECTED else None,
        "special": {"eos": vocabulary - 1 if end == LEGACY_END else end},
        "backbone": {
            "kind": "transformer",
            "causal": True,
            "depth": need(keys, "num_hidden_layers", int),
            "width": need(keys, "hidden_size", int),
            "length": keys.take("max_position_embeddings", 77),
            "norm": {"kind": "layer", "eps": keys.take("layer_norm_eps", 1e-5)},
            "attention": {
                "heads": need(keys, "num_attention_heads", int),
                "dropout": keys.take("attention_dropout", 0.0),
            },
            "feedforward": {
                "hidden": need(keys, "intermediate_size", int),
                "activation": keys.activation("hidden_act", "quick_gelu"),
            },
            "position": "learned",
            "init_std": keys.take("initializer_range", 0.02),
        },
    }
    keys.finish(NAME)
    return node


def write_config(config: Any) -> dict[str, Any]:
    """Returns a config.json of the text tower; raises ConfigError for what it cannot say."""
    holds(NAME, config, norm="layer", feedforward="mlp", position="learned")
    backbone = config.backbone
    if "eos" not in config.special:
        raise ConfigError(f"special.eos: format {NAME!r} reads a text at its end.")
    public = {
        "model_type": "clip_text_model",
        "architectures": [PROJECTED if config.projection else "CLIPTextModel"],
        "vocab_size": config.vocabulary,
        "hidden_size": backbone.width,
        "intermediate_size": backbone.feedforward.inner(backbone.width),
        "projection_dim": config.projection or 512,
        "num_hidden_layers": backbone.depth,
        "num_attention_heads": backbone.attention.shape(backbone.width)[0],
        "max_position_embeddings": backbone.position[0].length or backbone.length,
        "hidden_act": public_activation(backbone.feedforward.activation),
        "layer_norm_eps": backbone.norm.eps,
        "attention_dropout": backbone.attention.dropout,
        "initializer_range": backbone.init_std,
        "eos_token_id": config.special["eos"],
    }
    return checked(FORMAT, config, public)


def weight_map(config: Any) -> WeightMap:
    """Returns the table of a file; what is of the pictures is dropped."""
    prefix = TOWER if config.projection else ""
    layer = f"{prefix}encoder.layers.*."
    rows = [
        Rename(f"{prefix}embeddings.token_embedding.weight", "embedding.table.weight"),
        Rename(f"{prefix}embeddings.position_embedding.weight", "backbone.positions.0.weight"),
        *attention_rows(
            f"{layer}self_attn.",
            "backbone.layers.*.attention.",
            ("q_proj", "k_proj", "v_proj", "out_proj"),
        ),
        *layer_rows(layer, ("layer_norm1", "layer_norm2"), ("mlp.fc1", "mlp.fc2")),
        Rename(f"{prefix}final_layer_norm.", "backbone.final_norm."),
        Drop(f"{prefix}embeddings.position_ids"),
        Drop("vision_model.", "visual_projection.", "logit_scale"),
    ]
    if config.projection:
        rows.append(Rename("text_projection.", "projection."))
    return WeightMap(rows, prefixes=[TOWER])


FORMAT = Format(
    name=NAME,
    kind="masked-lm",
    read_config=read_config,
    write_config=write_config,
    weight_map=weight_map,
    model_types=("clip_text_model",),
)
