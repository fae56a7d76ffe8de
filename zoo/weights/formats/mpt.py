"""MPT as transformers stores it: ALiBi, no bias anywhere.

transformers 5.23 reads prefix_lm, alibi, alibi_bias_max, qk_ln, attn_type, logit_scale,
expansion_ratio and no_bias without doing what they say; here any but the plain value is refused.
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
    holds,
    named,
    need,
    read_special,
    text_keys,
    write_special,
)
from zoo.weights.map import Rename, WeightMap

NAME = "transformers-mpt"


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of an MPT config.json."""
    keys = text_keys(content)
    # learned_pos_emb says nothing where there is ALiBi; the others are of training
    keys.ignore("learned_pos_emb", "init_config", "init_device", "tokenizer_name", "verbose")
    keys.only("expansion_ratio", 4)
    keys.only("no_bias", True)
    keys.only("logit_scale", None)
    keys.only("embedding_fraction", 1)
    keys.only("norm_type", "low_precision_layernorm", "layernorm")
    attention = keys.section("attn_config")
    attention.ignore_generic()
    attention.ignore("attn_impl")
    attention.only("attn_type", "multihead_attention")
    attention.only("prefix_lm", False)
    attention.only("qk_ln", False)
    attention.only("attn_uses_sequence_id", False)
    attention.only("alibi", True)
    attention.only("alibi_bias_max", 8)
    node = {
        "vocabulary": need(keys, "vocab_size", int),
        "tied": keys.take("tie_word_embeddings", True),
        "special": read_special(keys),
        "backbone": {
            "kind": "transformer",
            "causal": True,
            "depth": named(keys, "n_layers", "num_hidden_layers"),
            "width": named(keys, "d_model", "hidden_size"),
            "length": keys.take("max_seq_len", 2048),
            "norm": {
                "kind": "layer",
                "eps": keys.take("layer_norm_epsilon", 1e-5),
                "bias": False,
            },
            "attention": {
                "heads": named(keys, "n_heads", "num_attention_heads"),
                "qkv_bias": False,
                "out_bias": False,
                "clip": attention.take("clip_qkv", None, float),
                "scale": attention.take("softmax_scale", None, float),
                "dropout": attention.take("attn_pdrop", 0.0),
            },
            "feedforward": {"activation": "gelu", "bias": False},
            "position": "alibi",
            **dropouts(keys.take("resid_pdrop", 0.0), keys.take("emb_pdrop", 0.0)),
            "init_std": keys.take("initializer_range", 0.02),
        },
    }
    attention.finish(NAME)
    keys.finish(NAME)
    return node


def write_config(config: Any) -> dict[str, Any]:
    """Returns an MPT config.json; raises ConfigError for what it cannot say."""
    holds(NAME, config, norm="layer", feedforward="mlp", position="alibi")
    backbone = config.backbone
    dropout = backbone.attention.dropout
    public = {
        "model_type": "mpt",
        "architectures": ["MptForCausalLM"],
        "vocab_size": config.vocabulary,
        "d_model": backbone.width,
        "n_layers": backbone.depth,
        "n_heads": backbone.attention.shape(backbone.width)[0],
        "max_seq_len": backbone.length or 2048,  # ALiBi itself knows no end
        "expansion_ratio": 4,
        "no_bias": True,
        "layer_norm_epsilon": backbone.norm.eps,
        "attn_config": {
            "attn_type": "multihead_attention",
            "alibi": True,
            "alibi_bias_max": 8,
            "clip_qkv": backbone.attention.clip,
            "softmax_scale": backbone.attention.scale,
            "attn_pdrop": dropout or 0,  # the reference's schema takes whole numbers only
        },
        "resid_pdrop": backbone.dropout,
        "emb_pdrop": embedding_dropout(backbone),
        "initializer_range": backbone.init_std,
        "tie_word_embeddings": config.tied,
        **write_special(config.special),
    }
    return checked(FORMAT, config, public)


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    theirs, ours = "transformer.blocks.*.", "backbone.layers.*."
    return WeightMap(
        [
            *embedding_rows(config, "transformer.wte.weight"),
            Rename(f"{theirs}norm_1.", f"{ours}attention_norm."),
            Rename(f"{theirs}norm_2.", f"{ours}feedforward_norm."),
            Rename(f"{theirs}attn.Wqkv.", f"{ours}attention.qkv."),
            Rename(f"{theirs}attn.out_proj.", f"{ours}attention.out."),
            Rename(f"{theirs}ffn.up_proj.", f"{ours}feedforward.up."),
            Rename(f"{theirs}ffn.down_proj.", f"{ours}feedforward.down."),
            Rename("transformer.norm_f.", "backbone.final_norm."),
        ],
        prefixes=["transformer."],
    )


FORMAT = Format(NAME, "causal-lm", read_config, write_config, weight_map, model_types=("mpt",))
