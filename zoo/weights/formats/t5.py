"""T5 and its relatives as transformers stores them: T5 1.0, 1.1, Flan, UL2 (`t5`), mT5 and UMT5.

|      | bias of distances            | outputs before the head are scaled by width^-0.5          |
|------|------------------------------|-----------------------------------------------------------|
| t5   | one table a stack            | if `scale_decoder_outputs`, or else `tie_word_embeddings` |
| mt5  | one table a stack            | never                                                     |
| umt5 | one table in every layer     | if `tie_word_embeddings`                                  |

The head is its own matrix if the file has one and the outputs are not scaled: version 5 of
transformers writes `tie_word_embeddings: true` whatever the file holds. It also scales what any
UMT5 puts out, even where the config says otherwise, which divides all scores by one number.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._pair import (
    STACKS,
    pair_keys,
    read_pair_special,
    write_pair_special,
)
from zoo.weights.formats._text import checked, holds
from zoo.weights.formats.keys import ACTIVATIONS, Keys, public_activation, show
from zoo.weights.map import Drop, Fuse, Rename, Rule, Tie, WeightMap

NAME = "transformers-t5"
CLASSES = {"t5": "T5", "mt5": "MT5", "umt5": "UMT5"}
HEAD = "lm_head.weight"


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of a T5, mT5 or UMT5 config.json."""
    keys = pair_keys(content)
    kind = keys.take("model_type", "t5")
    name = CLASSES[kind]
    keys.architecture(f"{name}ForConditionalGeneration", "T5WithLMHeadModel")
    keys.ignore("n_positions", "classifier_dropout", "tokenizer_class")
    new = kind != "t5"
    width = keys.take("d_model", 512)
    tie = keys.take("tie_word_embeddings", True)
    scaled = keys.take("scale_decoder_outputs", tie and kind != "mt5")
    if kind != "t5":
        keys.only("scale_decoder_outputs", scaled, None)
    own = not tie if not names else HEAD in names and (new or not scaled)
    depth = keys.take("num_layers", 8 if new else 6)
    heads, head_dim = keys.take("num_heads", 6 if new else 8), keys.take("d_kv", 64)
    dropout = keys.take("dropout_rate", 0.1)
    attention = {
        "kind": "multihead",
        "heads": heads,
        "head_dim": head_dim,
        "scale": 1.0,
        "qkv_bias": False,
        "out_bias": False,
        "dropout": dropout,
    }
    stack = {
        "kind": "transformer",
        "width": width,
        "norm": {"kind": "rms", "eps": keys.take("layer_norm_epsilon", 1e-6)},
        "position": {
            "kind": "t5",
            "buckets": keys.take("relative_attention_num_buckets", 32),
            "max_distance": keys.take("relative_attention_max_distance", 128),
            "per_layer": kind == "umt5",
        },
        "attention": attention,
        "feedforward": {
            **_read_feedforward(keys, "gated-gelu" if new else "relu"),
            "hidden": keys.take("d_ff", 1024 if new else 2048),
            "bias": False,
            "dropout": dropout,
        },
        "dropout": dropout,
    }
    written = {"causal": True, "cross_attention": attention}
    node = {
        "vocabulary": keys.take("vocab_size", 250112 if new else 32128),
        "tied": not own,
        "head_scale": width**-0.5 if scaled else 1.0,
        "special": read_pair_special(keys, 0),
        "encoder": {**stack, "depth": depth},
        "decoder": {**stack, **written, "depth": keys.take("num_decoder_layers", depth)},
    }
    keys.finish(NAME)
    return node


def _read_feedforward(keys: Keys, default: str) -> dict[str, Any]:
    """Returns (kind, activation) of `feed_forward_proj`, which is `gelu` or `gated-gelu`; gated,
    the
    approximation is meant."""
    said = keys.take("feed_forward_proj", default)
    gate, _, name = said.rpartition("-")
    if gate not in ("", "gated") or name not in ACTIVATIONS:
        raise ConfigError(
            f"{keys.where}: 'feed_forward_proj' = {show(said)} is not supported (only an "
            "activation, or gated- and an activation)."
        )
    name = "gelu_new" if said == "gated-gelu" else name
    # what transformers works out of it and writes too
    keys.only("is_gated_act", gate == "gated", None)
    same = [other for other, ours in ACTIVATIONS.items() if ours == ACTIVATIONS[name]]
    keys.only("dense_act_fn", name, *same, None)
    return {"kind": "gated" if gate else "mlp", "activation": ACTIVATIONS[name]}


def write_config(config: Any) -> dict[str, Any]:
    """Returns the config.json of T5 or UMT5; raises ConfigError for what they cannot say."""
    encoder, decoder = config.encoder, config.decoder
    gate = encoder.feedforward.zoo_kind
    for stack in STACKS:
        cross = {"cross_attention": "multihead"} if stack == "decoder" else {}
        parts = {"norm": "rms", "feedforward": gate, "position": "t5", **cross}
        holds(NAME, config, stack, **parts)
    position = encoder.position[0]
    kind = "umt5" if position.per_layer else "t5"
    activation = encoder.feedforward.activation
    # gated, `gelu` means its approximation and `gelu_python` the exact one
    exact = "gelu_python" if gate == "gated" and activation == "gelu" else None
    public_act = exact or public_activation(activation)
    if gate == "gated" and activation == "gelu_tanh":
        public_act = "gelu"
    heads, _, head_dim = encoder.attention.shape(encoder.width)
    scaled = math.isclose(config.head_scale, encoder.width**-0.5, rel_tol=1e-6)
    public = {
        "model_type": kind,
        "architectures": [f"{CLASSES[kind]}ForConditionalGeneration"],
        "is_encoder_decoder": True,
        "vocab_size": config.vocabulary,
        "d_model": encoder.width,
        "d_kv": head_dim,
        "d_ff": encoder.feedforward.inner(encoder.width),
        "num_layers": encoder.depth,
        "num_decoder_layers": decoder.depth,
        "num_heads": heads,
        "relative_attention_num_buckets": position.buckets,
        "relative_attention_max_distance": position.max_distance,
        "dropout_rate": encoder.dropout,
        "layer_norm_epsilon": encoder.norm.eps,
        "feed_forward_proj": f"gated-{public_act}" if gate == "gated" else public_act,
        "tie_word_embeddings": scaled if kind == "umt5" else config.tied,
        **({"scale_decoder_outputs": scaled} if kind == "t5" else {}),
        **write_pair_special(config),
    }
    return checked(FORMAT, config, public, {"shared.weight"} if config.tied else {HEAD})


# -- tensors ---------------------------------------------------------------------------------------


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    names = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    head = [] if config.tied else [Rename(HEAD, "head.weight")]
    return WeightMap(
        [
            Tie([*names, HEAD] if config.tied else names, ["embedding.table.weight"]),
            *head,
            *_stack_rows(config, "encoder", 1),
            *_stack_rows(config, "decoder", 2),
            # of old files; never read
            Drop("decoder.block.*.layer.1.EncDecAttention.relative_attention_bias."),
        ]
    )


def _stack_rows(config: Any, name: str, last: int) -> list[Rule]:
    """The rows of a stack; its block has the feed-forward as its sublayer `last`."""
    stack = getattr(config, name)
    theirs, ours = f"{name}.block.*.layer.", f"{name}.layers.*."
    own, cross, dense = (
        f"{theirs}{place}."
        for place in ("0.SelfAttention", "1.EncDecAttention", f"{last}.DenseReluDense")
    )
    table = "SelfAttention.relative_attention_bias.weight"
    rows: list[Rule] = [
        Fuse([f"{own}q.", f"{own}k.", f"{own}v."], f"{ours}attention.qkv."),
        Rename(f"{own}o.", f"{ours}attention.out."),
        Rename(f"{theirs}0.layer_norm.", f"{ours}attention_norm."),
        Rename(f"{dense}wo.", f"{ours}feedforward.down."),
        Rename(f"{theirs}{last}.layer_norm.", f"{ours}feedforward_norm."),
        Rename(f"{name}.final_layer_norm.", f"{name}.final_norm."),
    ]
    if stack.position and stack.position[0].zoo_kind == "t5":
        per_layer = stack.position[0].per_layer
        place = ("*", f"{ours}attention.relative.weight")
        place = place if per_layer else ("0", f"{name}.positions.0.table.weight")
        rows.append(Rename(f"{name}.block.{place[0]}.layer.0.{table}", place[1]))
    if stack.feedforward.zoo_kind == "gated":
        rows.append(Fuse([f"{dense}wi_0.", f"{dense}wi_1."], f"{ours}feedforward.gate_up."))
    else:
        rows.append(Rename(f"{dense}wi.", f"{ours}feedforward.up."))
    if name == "decoder":
        rows += [
            Rename(f"{cross}q.", f"{ours}cross_attention.q."),
            Fuse([f"{cross}k.", f"{cross}v."], f"{ours}cross_attention.kv."),
            Rename(f"{cross}o.", f"{ours}cross_attention.out."),
            Rename(f"{theirs}1.layer_norm.", f"{ours}cross_attention_norm."),
        ]
    return rows


FORMAT = Format(
    NAME,
    "seq2seq",
    read_config,
    write_config,
    weight_map,
    model_types=("t5", "mt5", "umt5"),
)
