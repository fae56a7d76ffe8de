"""XLNet as transformers stores it: projections with an axis of heads, (d, heads, channels).

`use_mems_eval`, `use_mems_train` and `mem_len` say what a call gives back; ours does when `memory`
is above 0. What only pretraining or other heads read is left out.
"""

# d width, h heads, c channels of a head

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.weights.formats import Format
from zoo.weights.formats._text import (
    checked,
    dropouts,
    embedding_dropout,
    holds,
    named,
    read_special,
    text_keys,
    write_special,
)
from zoo.weights.formats.keys import public_activation
from zoo.weights.map import Fuse, Rename, Reshape, Squeeze, Tie, Transpose, WeightMap

NAME = "transformers-xlnet"
# Of other heads, of evaluation scripts, of how much is given back.
UNREAD = ("start_n_top", "end_n_top", "summary_last_dropout", "use_mems_eval", "use_mems_train")


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of an XLNet config.json."""
    keys = text_keys(content)
    keys.architecture("XLNetLMHeadModel")
    keys.ignore(*UNREAD)
    keys.only("untie_r", True, None)  # biases of the scores in every layer
    keys.only("bi_data", False, None)
    keys.only("same_length", False, None)
    keys.only("reuse_len", None, 0)
    keys.only("attn_type", "bi", "uni")
    width, heads = keys.take("d_model", 1024), keys.take("n_head", 16)
    clamp, dropout = keys.take("clamp_len", -1), keys.take("dropout", 0.1)
    node = {
        "vocabulary": named(keys, "vocab_size", "n_token", default=32000),
        "tied": keys.take("tie_word_embeddings", True),
        "memory": keys.take("mem_len", 512 if "mem_len" not in content else 0),
        "causal": keys.take("attn_type", "bi") == "uni",
        "special": read_special(keys),
        "backbone": {
            "kind": "transformer",
            "depth": keys.take("n_layer", 24),
            "width": width,
            "norm": {"kind": "layer", "eps": keys.take("layer_norm_eps", 1e-12)},
            "attention": {
                "kind": "multihead",
                "heads": heads,
                "head_dim": keys.take("d_head", width // heads),
                "qkv_bias": False,
                "out_bias": False,
                "dropout": dropout,
            },
            "feedforward": {
                "kind": "mlp",
                "hidden": keys.take("d_inner", 4096),
                "activation": keys.activation("ff_activation", "gelu"),
                "dropout": dropout,
            },
            "position": {
                "kind": "transformer-xl",
                "segments": True,
                "clamp": clamp if clamp > 0 else None,
            },
            "placement": "post",
            "final_norm": False,
            **dropouts(dropout, dropout),
            "init_std": keys.take("initializer_range", 0.02),
        },
    }
    keys.finish(NAME)
    return node


def write_config(config: Any) -> dict[str, Any]:
    """Returns an XLNet config.json; raises ConfigError for what it cannot say."""
    holds(NAME, config, norm="layer", feedforward="mlp", position="transformer-xl")
    backbone = config.backbone
    heads, _, head_dim = backbone.attention.shape(backbone.width)
    public = {
        "model_type": "xlnet",
        "architectures": ["XLNetLMHeadModel"],
        "vocab_size": config.vocabulary,
        "d_model": backbone.width,
        "n_layer": backbone.depth,
        "n_head": heads,
        "d_head": head_dim,
        "d_inner": backbone.feedforward.inner(backbone.width),
        "ff_activation": public_activation(backbone.feedforward.activation),
        "untie_r": True,
        "attn_type": "uni" if config.causal else "bi",
        "clamp_len": backbone.position[0].clamp or -1,
        "mem_len": config.memory or None,
        "dropout": embedding_dropout(backbone),
        "layer_norm_eps": backbone.norm.eps,
        "initializer_range": backbone.init_std,
        "tie_word_embeddings": config.tied,
        **write_special(config.special),
    }
    return checked(FORMAT, config, public)


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    backbone = config.backbone
    heads, _, head_dim = backbone.attention.shape(backbone.width)
    flat = Reshape((backbone.width, heads, head_dim), (backbone.width, heads * head_dim))
    theirs, ours = "transformer.layer.*.", "backbone.layers.*."
    scores, relative = f"{theirs}rel_attn.", f"{ours}attention.relative."
    table, head = "transformer.word_embedding.weight", "lm_loss.weight"
    return WeightMap(
        [
            *(
                [Tie([table, head], ["embedding.table.weight"])]
                if config.tied
                else [Rename(table, "embedding.table.weight"), Rename(head, "head.weight")]
            ),
            Rename("lm_loss.bias", "head.bias"),
            Rename("transformer.mask_emb", "query_embedding.weight", Squeeze(0, 1)),
            Fuse(
                [(f"{scores}{part}", flat, Transpose()) for part in "qkv"],
                f"{ours}attention.qkv.weight",
            ),
            Rename(f"{scores}o", f"{ours}attention.out.weight", flat),
            Rename(f"{scores}r", f"{relative}project.weight", flat, Transpose()),
            Rename(f"{scores}r_w_bias", f"{relative}content_bias"),
            Rename(f"{scores}r_r_bias", f"{relative}position_bias"),
            Rename(f"{scores}r_s_bias", f"{relative}segment_bias"),
            Rename(f"{scores}seg_embed", f"{relative}segment_embedding"),
            Rename(f"{scores}layer_norm.", f"{ours}attention_norm."),
            Rename(f"{theirs}ff.layer_1.", f"{ours}feedforward.up."),
            Rename(f"{theirs}ff.layer_2.", f"{ours}feedforward.down."),
            Rename(f"{theirs}ff.layer_norm.", f"{ours}feedforward_norm."),
        ],
        prefixes=["transformer."],
    )


FORMAT = Format(NAME, "permutation-lm", read_config, write_config, weight_map, ("xlnet",))
