"""LlamaGen's transformer (Sun et al. 2024, arXiv 2406.06525), of classes or of T5's features, under
the names of its `ModelArgs`: a Llama whose queries and keys turn with the row and the column.

What stands before the codes has no angle: there its queries and keys are nothing, so that every
code sees all of it alike (`rope-grid`, before: blank).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._codes import transformer_alone
from zoo.weights.formats._text import checked, holds
from zoo.weights.formats.keys import Keys
from zoo.weights.map import Fuse, HalfSplit, OnFirst, Rename, WeightMap

NAME = "llamagen"
DROPOUTS = {"token_dropout_p": 0.1, "attn_dropout_p": 0.0, "resid_dropout_p": 0.1}


def hidden_width(width: int, multiple: int, factor: float | None) -> int:
    """Returns Llama's inner width: two thirds of four times the width, rounded up."""
    hidden = int(2 * 4 * width / 3)
    hidden = hidden if factor is None else int(factor * hidden)
    return -(-hidden // multiple) * multiple


def read_config(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of a `ModelArgs`."""
    keys = Keys(content)
    kind = keys.take("model_type", "c2i")
    if kind not in ("c2i", "t2i"):
        raise ConfigError(f"{keys.where}: 'model_type' = {kind!r} is neither 'c2i' nor 't2i'.")
    count = keys.take("block_size", 256)
    side = math.isqrt(count)
    if side * side != count:
        raise ConfigError(f"{keys.where}: 'block_size' = {count} is no square of codes.")
    if not keys.take("class_dropout_prob", 0.1):
        raise ConfigError(f"{keys.where}: 'class_dropout_prob' = 0 leaves no class that is none.")
    width, heads = keys.take("dim", 4096), keys.take("n_head", 32)
    hidden = hidden_width(
        width, keys.take("multiple_of", 256), keys.take("ffn_dim_multiplier", None, float)
    )
    drops = {key: keys.take(key, value) for key, value in DROPOUTS.items()}
    keys.only("ffn_dropout_p", drops["resid_dropout_p"], None)
    prefix, classes = keys.take("cls_token_num", 1), keys.take("num_classes", 1000)
    caption = keys.take("caption_dim", 2048)
    if kind == "c2i":
        if prefix != 1:
            raise ConfigError(f"{keys.where}: 'cls_token_num' = {prefix}: a class is one token.")
        asked: dict[str, Any] = {"classes": classes}
    else:
        asked = {
            "features": caption,
            "features_length": prefix,
            "features_activation": "gelu_tanh",
            "prompt_bias": False,
        }
    keys.ignore("initializer_range", "max_batch_size", "max_seq_len")
    node = {
        **asked,
        "codes": keys.take("vocab_size", 16384),
        "grid": [side, side],
        "backbone": {
            "kind": "transformer",
            "depth": keys.take("n_layer", 32),
            "width": width,
            "causal": True,
            "norm": {"kind": "rms", "eps": keys.take("norm_eps", 1e-5)},
            "position": {
                "kind": "rope-grid",
                "theta": keys.take("rope_base", 10000.0, float),
                "before": "blank",
            },
            "attention": {
                "kind": "multihead",
                "heads": heads,
                "kv_heads": keys.take("n_kv_head", heads),
                "qkv_bias": False,
                "out_bias": False,
                "dropout": drops["attn_dropout_p"],
            },
            "feedforward": {
                "kind": "gated",
                "hidden": hidden,
                "activation": "silu",
                "bias": False,
            },
            "dropout": drops["resid_dropout_p"],
            "embedding_dropout": drops["token_dropout_p"],
            "drop_path": keys.take("drop_path_rate", 0.0),
        },
    }
    keys.finish(NAME)
    return node


def write_config(config: Any) -> dict[str, Any]:
    """Returns a `ModelArgs`; raises ConfigError for what it cannot say."""
    holds(NAME, config, norm="rms", feedforward="gated", position="rope-grid")
    stack, hidden = config.backbone, config.backbone.feedforward.inner(config.backbone.width)
    heads, kv_heads, _ = stack.attention.shape(stack.width)
    drop = stack.embedding_dropout
    usual = hidden == hidden_width(stack.width, 256, None)
    public = {
        "model_type": "c2i" if config.classes else "t2i",
        "block_size": math.prod(config.shape),
        "cls_token_num": config.prefix,
        "vocab_size": config.codebook,
        "dim": stack.width,
        "n_layer": stack.depth,
        "n_head": heads,
        "n_kv_head": kv_heads,
        "multiple_of": 256 if usual else hidden,
        "rope_base": stack.position[0].theta,
        "norm_eps": stack.norm.eps,
        "token_dropout_p": stack.dropout if drop is None else drop,
        "attn_dropout_p": stack.attention.dropout,
        "resid_dropout_p": stack.dropout,
        "ffn_dropout_p": stack.dropout,
        "drop_path_rate": stack.drop_path,
    }
    if config.classes:
        public["num_classes"] = config.classes
    else:
        public["caption_dim"] = config.features
    return checked(FORMAT, transformer_alone(config), public)


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    theirs, ours, stack = "layers.*.", "backbone.layers.*.", config.backbone
    heads, kv_heads, head_dim = stack.attention.shape(stack.width)
    turned = OnFirst((heads + kv_heads) * head_dim, HalfSplit(heads + kv_heads, head_dim))
    inner = f"{theirs}feed_forward."
    rows = [
        Rename("tok_embeddings.weight", "embedding.table.weight"),
        Rename(f"{theirs}attention_norm.", f"{ours}attention_norm."),
        Rename(f"{theirs}attention.wqkv.weight", f"{ours}attention.qkv.weight", turned),
        Rename(f"{theirs}attention.wo.weight", f"{ours}attention.out.weight"),
        Rename(f"{theirs}ffn_norm.", f"{ours}feedforward_norm."),
        Fuse([f"{inner}w1.weight", f"{inner}w3.weight"], f"{ours}feedforward.gate_up.weight"),
        Rename(f"{inner}w2.weight", f"{ours}feedforward.down.weight"),
        Rename("norm.weight", "backbone.final_norm.weight"),
        Rename("output.weight", "head.weight"),
    ]
    if config.classes:
        rows.append(Rename("cls_embedding.embedding_table.weight", "prompt.classes.weight"))
    else:
        project = "cls_embedding.cap_proj."
        rows += [
            Rename(f"{project}fc1.weight", "prompt.project.weight"),
            Rename(f"{project}fc2.weight", "prompt.project_out.weight"),
            Rename("cls_embedding.uncond_embedding", "prompt.nothing"),
        ]
    return WeightMap(rows)


FORMAT = Format(
    NAME, "generator", read_config, write_config, weight_map, model_types=("c2i", "t2i")
)
