"""Falcon as transformers stores it: blocks that read one norm and add up, in three layouts.

| model         | config                             | rows of the fused projection              |
|---------------|------------------------------------|-------------------------------------------|
| Falcon-7B     | `multi_query`                      | q \\| k \\| v, one key head               |
| Falcon-40B    | `new_decoder_architecture`         | key head by key head: its queries, k, v   |
| Falcon-RW     | neither; ALiBi, blocks in sequence | head by head: q, k, v                     |
"""

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
    read_rope,
    read_special,
    text_keys,
    write_rope,
    write_special,
)
from zoo.weights.formats.keys import Keys, public_activation
from zoo.weights.map import Drop, FromHeadGroups, Rename, WeightMap

NAME = "transformers-falcon"


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of a Falcon config.json."""
    keys = text_keys(content)
    keys.only("apply_residual_connection_post_layernorm", False)  # read by no version
    width, heads = named(keys, "hidden_size", "n_embed"), need(keys, "num_attention_heads", int)
    length = keys.take("max_position_embeddings", 2048)
    bias = keys.take("bias", False)
    node = {
        "vocabulary": need(keys, "vocab_size", int),
        "tied": keys.take("tie_word_embeddings", True),
        "special": read_special(keys),
        "backbone": {
            "kind": "transformer",
            "causal": True,
            "depth": need(keys, "num_hidden_layers", int),
            "width": width,
            "length": length,
            "norm": {"kind": "layer", "eps": keys.take("layer_norm_epsilon", 1e-5)},
            **_shape(keys),
            "attention": {
                "heads": heads,
                "kv_heads": _kv_heads(keys, heads),
                "qkv_bias": bias,
                "out_bias": bias,
                "dropout": keys.take("attention_dropout", 0.0),
            },
            "feedforward": {
                "hidden": keys.take("ffn_hidden_size", 4 * width),
                "activation": keys.activation("activation", "gelu"),
                "bias": bias,
            },
            "position": _position(keys, length, width // heads),
            **dropouts(keys.take("hidden_dropout", 0.0), 0.0),
            "init_std": keys.take("initializer_range", 0.02),
        },
    }
    keys.finish(NAME)
    return node


def _shape(keys: Keys) -> dict[str, Any]:
    """Returns our keys for the order of a block and its norms."""
    if keys.take("new_decoder_architecture", False):
        keys.only("parallel_attn", True, None)
        keys.only("num_ln_in_parallel_attn", 1, 2, None)
        return {"parallel": True, "parallel_norms": keys.take("num_ln_in_parallel_attn", 2)}
    keys.only("num_ln_in_parallel_attn", 1, None)
    return {"parallel": keys.take("parallel_attn", True), "parallel_norms": 1}


def _kv_heads(keys: Keys, heads: int) -> int:
    given = keys.take("num_kv_heads", heads)
    one = keys.take("multi_query", True)
    if keys.content.get("new_decoder_architecture"):
        return given
    if not one:
        keys.only("num_kv_heads", heads, None)
    return 1 if one else heads


def _position(keys: Keys, length: int, head_dim: int) -> dict[str, Any]:
    rope = read_rope(keys, length)
    if not keys.take("alibi", False):
        return rope
    return {"kind": "alibi", "factor": head_dim**-0.5, "rounding": "bfloat16"}


def write_config(config: Any) -> dict[str, Any]:
    """Returns a Falcon config.json; raises ConfigError for what it cannot say."""
    backbone = config.backbone
    alibi = [position.zoo_kind for position in backbone.position] == ["alibi"]
    holds(NAME, config, norm="layer", feedforward="mlp", position="alibi" if alibi else "rope")
    heads, kv_heads, _ = backbone.attention.shape(backbone.width)
    grouped = _grouped(backbone)
    public = {
        "model_type": "falcon",
        "architectures": ["FalconForCausalLM"],
        "vocab_size": config.vocabulary,
        "hidden_size": backbone.width,
        "num_hidden_layers": backbone.depth,
        "num_attention_heads": heads,
        "num_kv_heads": kv_heads,
        "ffn_hidden_size": backbone.feedforward.inner(backbone.width),
        "activation": public_activation(backbone.feedforward.activation),
        "bias": backbone.feedforward.bias,
        "new_decoder_architecture": grouped,
        "multi_query": kv_heads == 1,
        "parallel_attn": backbone.parallel,
        "num_ln_in_parallel_attn": backbone.parallel_norms if grouped else None,
        "alibi": alibi,
        "max_position_embeddings": backbone.length or 2048,
        "layer_norm_epsilon": backbone.norm.eps,
        "attention_dropout": backbone.attention.dropout,
        "hidden_dropout": backbone.dropout,
        "initializer_range": backbone.init_std,
        "tie_word_embeddings": config.tied,
        **({} if alibi else write_rope(backbone.position[0])),
        **write_special(config.special),
    }
    return checked(FORMAT, config, public)


def _grouped(backbone: Any) -> bool:
    """Returns whether a backbone needs Falcon's new layout: it shares key heads among some, or has
    two norms in a parallel block."""
    heads, kv_heads, _ = backbone.attention.shape(backbone.width)
    two_norms = backbone.parallel and backbone.parallel_norms == 2
    return kv_heads not in (1, heads) or two_norms


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    backbone = config.backbone
    theirs, ours = "transformer.h.*.", "backbone.layers.*."
    shape = heads_of(config)
    qkv = (f"{theirs}self_attention.query_key_value.", f"{ours}attention.qkv.")
    rows = []
    if shape is not None:
        heads, kv_heads, head_dim = shape
        plain = kv_heads == 1 and not _grouped(backbone)
        by_head = [] if plain else [FromHeadGroups(heads, head_dim, kv_heads)]
        rows.append(Rename(*qkv, *by_head))
    two_norms = backbone.parallel and backbone.parallel_norms == 2
    norms = {"ln_attn.": "attention_norm.", "ln_mlp.": "feedforward_norm."}
    if not two_norms:
        norms = {"input_layernorm.": "attention_norm."}
    if not backbone.parallel:
        norms["post_attention_layernorm."] = "feedforward_norm."
    return WeightMap(
        [
            *embedding_rows(config, "transformer.word_embeddings.weight"),
            *(Rename(theirs + a, ours + b) for a, b in norms.items()),
            *rows,
            Rename(f"{theirs}self_attention.dense.", f"{ours}attention.out."),
            Rename(f"{theirs}mlp.dense_h_to_4h.", f"{ours}feedforward.up."),
            Rename(f"{theirs}mlp.dense_4h_to_h.", f"{ours}feedforward.down."),
            Rename("transformer.ln_f.", "backbone.final_norm."),
            Drop(
                f"{theirs}self_attention.rotary_emb.inv_freq",
                f"{theirs}self_attention.rotary.inv_freq",
                f"{theirs}self_attention.maybe_rotary.inv_freq",
            ),
        ],
        prefixes=["transformer."],
    )


FORMAT = Format(NAME, "causal-lm", read_config, write_config, weight_map, model_types=("falcon",))
