"""Bloom as transformers stores it: fused q, k and v head by head, a norm on the embeddings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.weights.formats import Format
from zoo.weights.formats._text import (
    checked,
    dropouts,
    embedding_rows,
    heads_of,
    holds,
    named,
    need,
    read_special,
    text_keys,
    write_special,
)
from zoo.weights.map import FromHeadGroups, Rename, WeightMap

NAME = "transformers-bloom"


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of a Bloom config.json."""
    keys = text_keys(content)
    keys.only("apply_residual_connection_post_layernorm", False)
    keys.only("n_inner", None)  # always four times the width
    keys.only("skip_bias_add_qkv", False)
    keys.ignore("skip_bias_add", "offset_alibi")  # of the trainer; softmax cancels an offset
    width = named(keys, "hidden_size", "n_embed", "n_embd")
    node = {
        "vocabulary": need(keys, "vocab_size", int),
        "tied": keys.take("tie_word_embeddings", True),
        "special": read_special(keys),
        "backbone": {
            "kind": "transformer",
            "causal": True,
            "depth": named(keys, "n_layer", "num_hidden_layers"),
            "width": width,
            "length": keys.take("seq_length", None, int),
            "norm": {"kind": "layer", "eps": keys.take("layer_norm_epsilon", 1e-5)},
            "attention": {
                "heads": named(keys, "n_head", "num_attention_heads"),
                "dropout": keys.take("attention_dropout", 0.0),
            },
            "feedforward": {"hidden": 4 * width, "activation": "gelu_tanh"},
            "position": "alibi",
            "embedding_norm": True,
            **dropouts(keys.take("hidden_dropout", 0.0), 0.0),
            "init_std": keys.take("initializer_range", 0.02),
        },
    }
    keys.finish(NAME)
    return node


def write_config(config: Any) -> dict[str, Any]:
    """Returns a Bloom config.json; raises ConfigError for what it cannot say."""
    holds(NAME, config, norm="layer", feedforward="mlp", position="alibi")
    backbone = config.backbone
    public = {
        "model_type": "bloom",
        "architectures": ["BloomForCausalLM"],
        "vocab_size": config.vocabulary,
        "hidden_size": backbone.width,
        "n_layer": backbone.depth,
        "n_head": backbone.attention.shape(backbone.width)[0],
        "layer_norm_epsilon": backbone.norm.eps,
        "attention_dropout": backbone.attention.dropout,
        "hidden_dropout": backbone.dropout,
        "initializer_range": backbone.init_std,
        "tie_word_embeddings": config.tied,
        **({"seq_length": backbone.length} if backbone.length else {}),
        **write_special(config.special),
    }
    return checked(FORMAT, config, public)


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    theirs, ours = "transformer.h.*.", "backbone.layers.*."
    shape = heads_of(config)
    qkv = (f"{theirs}self_attention.query_key_value.", f"{ours}attention.qkv.")
    return WeightMap(
        [
            *embedding_rows(config, "transformer.word_embeddings.weight"),
            Rename("transformer.word_embeddings_layernorm.", "backbone.embedding_norm."),
            Rename(f"{theirs}input_layernorm.", f"{ours}attention_norm."),
            Rename(f"{theirs}post_attention_layernorm.", f"{ours}feedforward_norm."),
            *([Rename(*qkv, FromHeadGroups(shape[0], shape[2]))] if shape else []),
            Rename(f"{theirs}self_attention.dense.", f"{ours}attention.out."),
            Rename(f"{theirs}mlp.dense_h_to_4h.", f"{ours}feedforward.up."),
            Rename(f"{theirs}mlp.dense_4h_to_h.", f"{ours}feedforward.down."),
            Rename("transformer.ln_f.", "backbone.final_norm."),
        ],
        prefixes=["transformer."],
    )


FORMAT = Format(NAME, "causal-lm", read_config, write_config, weight_map, model_types=("bloom",))
