"""GPT-1 as transformers stores it (`openai-gpt`): `Conv1D` weights (in, out), norms after sums."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
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
from zoo.weights.map import Drop, Rename, Transpose, WeightMap

NAME = "transformers-gpt1"
# Its own table: "gelu" meant the approximation before there was another one.
ACTIVATIONS = {"gelu": "gelu_tanh", "gelu_new": "gelu_tanh", "relu": "relu", "silu": "silu"}


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of a GPT-1 config.json."""
    keys = text_keys(content)
    keys.ignore("n_ctx", "predict_special_tokens")
    keys.only("n_special", 0)
    activation = keys.take("afn", "gelu")
    if activation not in (*ACTIVATIONS, "swish"):
        raise ConfigError(
            f"{keys.where}: 'afn' = {activation!r} is not one of {', '.join(ACTIVATIONS)}."
        )
    node = {
        "vocabulary": need(keys, "vocab_size", int),
        "tied": keys.take("tie_word_embeddings", True),
        "special": read_special(keys),
        "backbone": {
            "kind": "transformer",
            "causal": True,
            "depth": named(keys, "n_layer", "num_hidden_layers"),
            "width": named(keys, "n_embd", "hidden_size"),
            "length": named(keys, "n_positions", "max_position_embeddings", default=512),
            "norm": {"kind": "layer", "eps": keys.take("layer_norm_epsilon", 1e-5)},
            "attention": {
                "heads": named(keys, "n_head", "num_attention_heads"),
                "dropout": keys.take("attn_pdrop", 0.1),
            },
            "feedforward": {"activation": ACTIVATIONS.get(activation, "silu")},
            "position": "learned",
            "placement": "post",
            "final_norm": False,
            **dropouts(keys.take("resid_pdrop", 0.1), keys.take("embd_pdrop", 0.1)),
            "init_std": keys.take("initializer_range", 0.02),
        },
    }
    keys.finish(NAME)
    return node


def write_config(config: Any) -> dict[str, Any]:
    """Returns a GPT-1 config.json; raises ConfigError for what it cannot say."""
    holds(NAME, config, norm="layer", feedforward="mlp", position="learned")
    backbone = config.backbone
    said = {ours: theirs for theirs, ours in ACTIVATIONS.items() if theirs != "gelu_new"}
    public = {
        "model_type": "openai-gpt",
        "architectures": ["OpenAIGPTLMHeadModel"],
        "vocab_size": config.vocabulary,
        "n_positions": backbone.position[0].length or backbone.length,
        "n_embd": backbone.width,
        "n_layer": backbone.depth,
        "n_head": backbone.attention.shape(backbone.width)[0],
        "afn": said.get(backbone.feedforward.activation, "gelu"),  # `checked` refuses another one
        "layer_norm_epsilon": backbone.norm.eps,
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
    conv1d = {
        "attn.c_attn.": "attention.qkv.",
        "attn.c_proj.": "attention.out.",
        "mlp.c_fc.": "feedforward.up.",
        "mlp.c_proj.": "feedforward.down.",
    }
    return WeightMap(
        [
            *embedding_rows(config, "transformer.tokens_embed.weight"),
            Rename("transformer.positions_embed.weight", "backbone.positions.0.weight"),
            Rename(f"{theirs}ln_1.", f"{ours}attention_norm."),
            Rename(f"{theirs}ln_2.", f"{ours}feedforward_norm."),
            *(
                Rename(f"{theirs}{a}weight", f"{ours}{b}weight", Transpose())
                for a, b in conv1d.items()
            ),
            *(Rename(f"{theirs}{a}bias", f"{ours}{b}bias") for a, b in conv1d.items()),
            Drop(f"{theirs}attn.bias"),  # causal masks
        ],
        prefixes=["transformer."],
    )


FORMAT = Format(
    NAME, "causal-lm", read_config, write_config, weight_map, model_types=("openai-gpt",)
)
