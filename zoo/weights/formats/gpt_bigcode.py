"""GPTBigCode (SantaCoder, StarCoder) as transformers stores it: GPT-2 with one key head.

Plain linear weights; with one key head rows are q | k | v, without they lie head by head.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.weights.formats import Format
from zoo.weights.formats._text import (
    checked,
    dropouts,
    embedding_dropout,
    embedding_rows,
    heads_of,
    holds,
    named,
    need,
    read_special,
    text_keys,
    write_special,
)
from zoo.weights.formats.keys import public_activation
from zoo.weights.map import Drop, FromHeadGroups, Rename, WeightMap

NAME = "transformers-gpt-bigcode"
# Of the server that the first files were written for.
SERVING = (
    "inference_runner", "max_batch_size", "max_sequence_length", "n_ctx", "pad_key_length",
    "pre_allocate_kv_cache", "validate_runner_input",
)  # fmt: skip


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of a GPTBigCode config.json."""
    keys = text_keys(content)
    keys.ignore(*SERVING)
    width, heads = (
        named(keys, "n_embd", "hidden_size"),
        named(keys, "n_head", "num_attention_heads"),
    )
    kv_heads = 1 if keys.take("multi_query", True) else heads
    keys.only("num_key_value_heads", kv_heads, None)
    node = {
        "vocabulary": need(keys, "vocab_size", int),
        "tied": keys.take("tie_word_embeddings", True),
        "special": read_special(keys),
        "backbone": {
            "kind": "transformer",
            "causal": True,
            "depth": named(keys, "n_layer", "num_hidden_layers"),
            "width": width,
            "length": named(keys, "n_positions", "max_position_embeddings", default=1024),
            "norm": {"kind": "layer", "eps": keys.take("layer_norm_epsilon", 1e-5)},
            "attention": {
                "heads": heads,
                "kv_heads": kv_heads,
                "scale": None if keys.take("scale_attn_weights", True) else 1.0,
                "dropout": keys.take("attn_pdrop", 0.1),
            },
            "feedforward": {
                "hidden": keys.take("n_inner", 4 * width),
                "activation": keys.activation("activation_function", "gelu_pytorch_tanh"),
            },
            "position": "learned",
            **dropouts(keys.take("resid_pdrop", 0.1), keys.take("embd_pdrop", 0.1)),
            "init_std": keys.take("initializer_range", 0.02),
            "init_residual": "depth",
        },
    }
    keys.finish(NAME)
    return node


def write_config(config: Any) -> dict[str, Any]:
    """Returns a GPTBigCode config.json; raises ConfigError for what it cannot say."""
    holds(NAME, config, norm="layer", feedforward="mlp", position="learned")
    backbone = config.backbone
    heads, kv_heads, _ = backbone.attention.shape(backbone.width)
    public = {
        "model_type": "gpt_bigcode",
        "architectures": ["GPTBigCodeForCausalLM"],
        "vocab_size": config.vocabulary,
        "n_positions": backbone.position[0].length or backbone.length,
        "n_embd": backbone.width,
        "n_layer": backbone.depth,
        "n_head": heads,
        "n_inner": backbone.feedforward.inner(backbone.width),
        "activation_function": public_activation(backbone.feedforward.activation),
        "layer_norm_epsilon": backbone.norm.eps,
        "multi_query": kv_heads == 1,
        "scale_attn_weights": backbone.attention.scale != 1.0,
        "attn_pdrop": backbone.attention.dropout,
        "resid_pdrop": backbone.dropout,
        "embd_pdrop": embedding_dropout(backbone),
        "initializer_range": backbone.init_std,
        "tie_word_embeddings": config.tied,
        **write_special(config.special),
    }
    return checked(FORMAT, config, public)


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    theirs, ours = "transformer.h.*.", "backbone.layers.*."
    shape = heads_of(config)
    by_head = [FromHeadGroups(shape[0], shape[2])] if shape and shape[1] != 1 else []
    return WeightMap(
        [
            *embedding_rows(config, "transformer.wte.weight"),
            Rename("transformer.wpe.weight", "backbone.positions.0.weight"),
            Rename(f"{theirs}ln_1.", f"{ours}attention_norm."),
            Rename(f"{theirs}ln_2.", f"{ours}feedforward_norm."),
            Rename(f"{theirs}attn.c_attn.", f"{ours}attention.qkv.", *by_head),
            Rename(f"{theirs}attn.c_proj.", f"{ours}attention.out."),
            Rename(f"{theirs}mlp.c_fc.", f"{ours}feedforward.up."),
            Rename(f"{theirs}mlp.c_proj.", f"{ours}feedforward.down."),
            Rename("transformer.ln_f.", "backbone.final_norm."),
            Drop(f"{theirs}attn.bias", f"{theirs}attn.masked_bias"),  # causal masks
        ],
        prefixes=["transformer."],
    )


FORMAT = Format(
    NAME, "causal-lm", read_config, write_config, weight_map, model_types=("gpt_bigcode",)
)
