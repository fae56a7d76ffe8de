"""GPT-2 as transformers stores it: `Conv1D` weights (in, out), q | k | v in one of them.

Hub files lack the prefix `transformer.` and carry causal masks as `h.N.attn.bias`.
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
from zoo.weights.formats.keys import public_activation
from zoo.weights.map import Drop, Rename, Transpose, WeightMap

NAME = "transformers-gpt2"


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of a GPT-2 config.json."""
    keys = text_keys(content)
    width, heads = (
        named(keys, "n_embd", "hidden_size"),
        named(keys, "n_head", "num_attention_heads"),
    )
    depth = named(keys, "n_layer", "num_hidden_layers")
    keys.ignore("n_ctx", "reorder_and_upcast_attn")  # a spare length; fp32 scores, as kernels do
    scale = None if keys.take("scale_attn_weights", True) else 1.0
    layers = []
    if keys.take("scale_attn_by_inverse_layer_idx", False):
        base = scale or (width // heads) ** -0.5
        layers = [{"attention": {"scale": base / (index + 1)}} for index in range(depth)]
    node = {
        "vocabulary": need(keys, "vocab_size", int),
        "tied": keys.take("tie_word_embeddings", True),
        "special": read_special(keys),
        "backbone": {
            "kind": "transformer",
            "causal": True,
            "depth": depth,
            "width": width,
            "length": named(keys, "n_positions", "max_position_embeddings", default=1024),
            "norm": {"kind": "layer", "eps": keys.take("layer_norm_epsilon", 1e-5)},
            "attention": {
                "heads": heads,
                "scale": scale,
                "dropout": keys.take("attn_pdrop", 0.1),
            },
            "feedforward": {
                "hidden": keys.take("n_inner", 4 * width),
                "activation": keys.activation("activation_function", "gelu_new"),
            },
            "position": "learned",
            "layers": layers,
            **dropouts(keys.take("resid_pdrop", 0.1), keys.take("embd_pdrop", 0.1)),
            "init_std": keys.take("initializer_range", 0.02),
            "init_residual": "depth",
        },
    }
    keys.finish(NAME)
    return node


def write_config(config: Any) -> dict[str, Any]:
    """Returns a GPT-2 config.json; raises ConfigError for what it cannot say."""
    holds(NAME, config, norm="layer", feedforward="mlp", position="learned")
    backbone = config.backbone
    scales = [backbone.block(index).attention.scale for index in range(backbone.depth)]
    by_layer = len(set(scales)) > 1
    act = backbone.feedforward.activation
    public = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocabulary,
        "n_positions": backbone.position[0].length or backbone.length,
        "n_ctx": backbone.position[0].length or backbone.length,  # llama.cpp's converter reads it
        "n_embd": backbone.width,
        "n_layer": backbone.depth,
        "n_head": backbone.attention.shape(backbone.width)[0],
        "n_inner": backbone.feedforward.inner(backbone.width),
        # gelu_new is what GPT-2 files have always said, and some readers know nothing else
        "activation_function": "gelu_new" if act == "gelu_tanh" else public_activation(act),
        "layer_norm_epsilon": backbone.norm.eps,
        "attn_pdrop": backbone.attention.dropout,
        "resid_pdrop": backbone.dropout,
        "embd_pdrop": embedding_dropout(backbone),
        "initializer_range": backbone.init_std,
        "scale_attn_weights": (scales[0] if scales else None) != 1.0,
        "scale_attn_by_inverse_layer_idx": by_layer,
        "tie_word_embeddings": config.tied,
        **write_special(config.special),
    }
    return checked(FORMAT, config, public)


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    theirs, ours = "transformer.h.*.", "backbone.layers.*."
    conv1d = {
        "attn.c_attn.": "attention.qkv.",
        "attn.c_proj.": "attention.out.",
        "mlp.c_fc.": "feedforward.up.",
        "mlp.c_proj.": "feedforward.down.",
    }
    return WeightMap(
        [
            *embedding_rows(config, "transformer.wte.weight"),
            Rename("transformer.wpe.weight", "backbone.positions.0.weight"),
            Rename(f"{theirs}ln_1.", f"{ours}attention_norm."),
            Rename(f"{theirs}ln_2.", f"{ours}feedforward_norm."),
            *(
                Rename(f"{theirs}{a}weight", f"{ours}{b}weight", Transpose())
                for a, b in conv1d.items()
            ),
            *(Rename(f"{theirs}{a}bias", f"{ours}{b}bias") for a, b in conv1d.items()),
            Rename("transformer.ln_f.", "backbone.final_norm."),
            Drop(f"{theirs}attn.bias", f"{theirs}attn.masked_bias"),  # causal masks
        ],
        prefixes=["transformer."],
    )


FORMAT = Format(NAME, "causal-lm", read_config, write_config, weight_map, model_types=("gpt2",))
