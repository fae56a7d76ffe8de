"""ruDALL-E (Malevich and its relatives) as ai-forever's `rudalle` stores it, under the arguments of
its DalleModel: DALL-E's decoder with sandwich norms, rows, columns and at the end a square.

Of two versions of the code the later (`v3`) is read: no token stands before the text, and the last
row of the text's positions is never used. `cogview_pb_relax` is another way to compute the same.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._codes import transformer_alone
from zoo.weights.formats._text import checked, holds, need
from zoo.weights.formats.keys import Keys
from zoo.weights.map import Drop, Leading, Rename, Split, WeightMap

NAME = "rudalle"
MARKER = "cogview_sandwich_layernorm"
SQUARE = 11


def patterns(depth: int) -> list[dict[str, Any]]:
    """Returns what each layer sees of the picture."""
    found: list[dict[str, Any]] = []
    for index in range(depth):
        if (index - 1) % 4 == 0:
            found.append({"pattern": "column"})
        elif index < depth - 1:
            found.append({"pattern": "row"})
        else:
            found.append({"pattern": "convolution", "pattern_size": SQUARE})
    return [{"attention": pattern} for pattern in found]


def read_config(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of a DalleModel's arguments."""
    keys = Keys(content)
    keys.only("hf_version", "v3", None)
    keys.only("is_bool_mask", True, False, None)
    keys.only("mlp_activation", "gelu_jit", "gelu", None)
    keys.ignore("cogview_pb_relax", "loss_img_weight", "device")
    side = keys.take("image_tokens_per_dim", 32)
    depth = need(keys, "num_layers", int)
    sandwich = keys.take(MARKER, False)
    dropout, std = keys.take("output_dropout_prob", 0.0), 0.02
    node = {
        "codes": keys.take("image_vocab_size", 16384),
        "grid": [side, side],
        "vocabulary": need(keys, "vocab_size", int),
        "text_length": keys.take("text_seq_length", 128),
        "pad_rows": True,
        "text_head": True,
        "head_norm": True,
        "head_bias": True,
        "backbone": {
            "kind": "transformer",
            "depth": depth,
            "width": need(keys, "hidden_size", int),
            "causal": True,
            "position": "learned-axial",
            "placement": "both" if sandwich else "pre",
            "attention": {
                "kind": "multihead",
                "heads": need(keys, "num_attention_heads", int),
                "dropout": keys.take("attention_dropout_prob", 0.0),
            },
            "feedforward": {"kind": "mlp", "activation": "gelu_tanh"},
            "layers": patterns(depth),
            "dropout": dropout,
            "embedding_dropout": keys.take("embedding_dropout_prob", 0.0),
            "init_std": std,
        },
    }
    keys.finish(NAME)
    return node


def write_config(config: Any) -> dict[str, Any]:
    """Returns a DalleModel's arguments; raises ConfigError for what they cannot say."""
    if len(config.shape) != 2 or config.shape[0] != config.shape[1]:
        raise ConfigError(f"Format {NAME!r} holds square pictures, not {config.shape}.")
    holds(NAME, config, norm="layer", feedforward="mlp", position="learned-axial")
    stack = config.backbone
    drop = stack.embedding_dropout
    public = {
        "hf_version": "v3",
        "num_layers": stack.depth,
        "vocab_size": config.vocabulary,
        "hidden_size": stack.width,
        "num_attention_heads": stack.attention.shape(stack.width)[0],
        "embedding_dropout_prob": stack.dropout if drop is None else drop,
        "attention_dropout_prob": stack.attention.dropout,
        "output_dropout_prob": stack.dropout,
        "text_seq_length": config.text_length,
        "image_tokens_per_dim": config.shape[0],
        "image_vocab_size": config.codebook,
        MARKER: stack.placement == "both",
        "cogview_pb_relax": True,
    }
    return checked(FORMAT, transformer_alone(config), public)


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    theirs, ours, length = "transformer.layers.*.", "backbone.layers.*.", config.text_length
    position, sizes = "backbone.positions.0.", (config.vocabulary, config.codebook)
    rows = [
        Rename("text_embeddings.weight", "prompt.embedding.table.weight"),
        Rename("image_embeddings.weight", "embedding.table.weight"),
        Rename("text_pos_embeddings.weight", f"{position}before", Leading(length, length + 1)),
        Rename("image_row_embeddings.weight", f"{position}axes.0"),
        Rename("image_col_embeddings.weight", f"{position}axes.1"),
        Rename(f"{theirs}input_layernorm.", f"{ours}attention_norm."),
        Rename(f"{theirs}attention.query_key_value.", f"{ours}attention.qkv."),
        Rename(f"{theirs}attention.dense.", f"{ours}attention.out."),
        Rename(f"{theirs}post_attention_layernorm.", f"{ours}feedforward_norm."),
        Rename(f"{theirs}mlp.dense_h_to_4h.", f"{ours}feedforward.up."),
        Rename(f"{theirs}mlp.dense_4h_to_h.", f"{ours}feedforward.down."),
        Rename("transformer.final_layernorm.", "backbone.final_norm."),
        Rename("to_logits.0.", "head_norm."),
        *(
            Split(f"to_logits.1.{name}", [f"text_head.{name}", f"head.{name}"], sizes=sizes)
            for name in ("weight", "bias")
        ),
        Drop(*(f"transformer.{name}_mask" for name in ("row", "col", "conv"))),
    ]
    if config.backbone.placement == "both":
        for place, name in (("first", "attention"), ("second", "feedforward")):
            added = f"{theirs}before_{place}_addition_layernorm."
            rows.append(Rename(added, f"{ours}{name}_post_norm."))
    return WeightMap(rows)


FORMAT = Format(
    NAME,
    "generator",
    read_config,
    write_config,
    weight_map,
    file="pytorch_model_v3.safetensors",
    marker=MARKER,
)
