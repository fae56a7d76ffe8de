"""DALL-E mini and mega (Dayma 2021) as min-dalle stores them, under the keys of DalleBart's config.

| theirs       | what                                                                 |
|--------------|----------------------------------------------------------------------|
| `encoder.…`  | the text's encoder: NormFormer's norms, gated, no biases             |
| `decoder.…`  | the decoder over the codes; its last row starts a picture            |
| `vqgan.…`    | the VQ-GAN under taming's names, where an export of ours has it      |

min-dalle has one file for each; the prefix stands for the file. Its 0.4 starts pictures with code
16383 in place of the row that the model was trained to start with; here that row does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._codes import transformer_alone
from zoo.weights.formats._pair import pair_keys, stack_keys
from zoo.weights.formats._text import checked, holds, need
from zoo.weights.formats._vqgan import Names
from zoo.weights.formats.keys import Keys
from zoo.weights.formats.vqgan import read_taming, write_taming
from zoo.weights.formats.vqgan import weight_map as vqgan_map
from zoo.weights.map import Fuse, Optional, Rename, Rule, WeightMap

NAME = "dalle-mini"
EMPTY = [0, 2]  # <s></s>, what guidance leads away from
PAD = 1
SPAN = [0.0, 1.0]  # codes were made of pixels in [0, 1], and so pictures come back
STACKS = ("encoder", "decoder")
# Variants that the authors' code has and these models have not, by what they have.
NEVER = {
    "head_scale": False,
    "ln_positions": "normformer",
    "ln_type": "layernorm",
    "scale_embedding": False,
    "sinkhorn_iters": 1,
    "tie_word_embeddings": False,
    "use_absolute_position_embeddings": True,
    "use_alibi": False,
    "use_bias": False,
    "use_cosine_attention": False,
    "use_deepnet_scaling": False,
    "use_final_ln_decoder": True,
    "use_final_ln_encoder": True,
    "use_glu": True,
    "use_head_scale": False,
    "use_swin_position_embeddings": False,
}


def read_config(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of a DalleBart config.json."""
    keys = pair_keys(content)
    for key, value in NEVER.items():
        keys.only(key, value, None)
    keys.ignore("force_ln_scale", "normalize_text", "tau_init", "use_scan", "use_subln_init")
    length = keys.take("image_length", 256)
    side = math.isqrt(length)
    if side * side != length:
        raise ConfigError(f"{keys.where}: 'image_length' = {length} is no square of codes.")
    rows = keys.take("image_vocab_size", 16384)  # codes, and in mega what nothing uses
    node = {
        "codes": keys.take("image_codes", min(rows, 16384)),
        "grid": [side, side],
        "code_rows": rows + 1,
        "start_code": keys.take("decoder_start_token_id", rows),
        "vocabulary": need(keys, "encoder_vocab_size", int),
        "text_length": keys.take("max_text_length", 64),
        "text_pads": False,
        "pad_token": PAD,
        "no_text": EMPTY,
        **_read_stacks(keys),
    }
    tokenizer = keys.section("vqgan")
    if tokenizer.content:
        visual = {"kind": "visual-codes", **read_taming(tokenizer.content), "span": SPAN}
        node = {k: v for k, v in node.items() if k not in ("codes", "grid")} | {"visual": visual}
    keys.finish(NAME)
    return node


def _read_stacks(keys: Keys) -> dict[str, Any]:
    width = keys.take("d_model", 1024)
    activation = keys.activation("activation_function", "gelu")
    dropout, inner = keys.take("dropout", 0.0), keys.take("activation_dropout", 0.0)
    attention_dropout, std = keys.take("attention_dropout", 0.0), keys.take("init_std", 0.02)
    stacks = {}
    for name, length in (("encoder", "max_text_length"), ("decoder", "image_length")):
        attention = {
            "kind": "multihead",
            "heads": keys.take(f"{name}_attention_heads", 16),
            "qkv_bias": False,
            "out_bias": False,
            "dropout": attention_dropout,
        }
        stacks[name] = {
            "kind": "transformer",
            "depth": keys.take(f"{name}_layers", 12),
            "width": width,
            "length": keys.take(length, 64 if name == "encoder" else 256),
            "position": "learned",
            "embedding_norm": True,
            "placement": "both",
            "post_norms": ["attention", "cross_attention"],
            "attention": attention,
            "feedforward": {
                "kind": "gated",
                "hidden": keys.take(f"{name}_ffn_dim", 4096),
                "activation": activation,
                "bias": False,
                "dropout": inner,
                "inner_norm": "layer",
            },
            "dropout": dropout,
            "init_std": std,
        }
    cross = stacks["decoder"]["attention"]
    backbone = {**stacks["decoder"], "causal": True, "cross_attention": cross}
    return {"encoder": stacks["encoder"], "backbone": backbone}


def write_config(config: Any) -> dict[str, Any]:
    """Returns a DalleBart config.json; raises ConfigError for what it cannot say."""
    if config.encoder is None or config.code_rows is None:
        key = "code_rows" if config.encoder is not None else "encoder"
        raise ConfigError(f"{key}: format {NAME!r} needs one.")
    public: dict[str, Any] = {
        "model_type": "dallebart",
        "is_encoder_decoder": True,
        "encoder_vocab_size": config.vocabulary,
        "max_text_length": config.text_length,
        "image_vocab_size": config.code_rows - 1,
        "image_length": math.prod(config.shape),
        "decoder_start_token_id": config.start_code,
        "image_codes": config.codebook,
        **{key: NEVER[key] for key in ("ln_positions", "ln_type", "use_bias", "use_glu")},
    }
    for name, stack in zip(STACKS, (config.encoder, config.backbone), strict=True):
        ours = "backbone" if name == "decoder" else name
        holds(NAME, config, ours, norm="layer", feedforward="gated", position="learned")
        public |= stack_keys(name, stack)
    checked(FORMAT, transformer_alone(config), public)
    if config.visual is not None:
        if list(config.visual.span) != SPAN:
            raise ConfigError(f"visual.span: format {NAME!r} means {SPAN}.")
        signed = dataclasses.replace(config.visual, span=(-1.0, 1.0))
        public["vqgan"] = write_taming(signed)
    return public


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    table = WeightMap(
        [
            Rename("encoder.embed_tokens.weight", "prompt.embedding.table.weight"),
            Rename("decoder.embed_tokens.weight", "embedding.table.weight"),
            Rename("decoder.lm_head.weight", "head.weight"),
            *_stack_rows("encoder.", "prompt.encoder."),
            *_stack_rows("decoder.", "backbone."),
        ]
    )
    if config.visual is None:
        return table
    visual = vqgan_map(config.visual, Names()).under("vqgan.", "visual.")
    return table + WeightMap([Optional(rule) for rule in visual.rules])


def _stack_rows(theirs: str, ours: str) -> list[Rule]:
    layer, block = f"{theirs}layers.*.", f"{ours}layers.*."
    own, cross = f"{layer}self_attn.", f"{layer}encoder_attn."
    rows: list[Rule] = [
        Rename(f"{theirs}embed_positions.weight", f"{ours}positions.0.weight"),
        Rename(f"{theirs}layernorm_embedding.", f"{ours}embedding_norm."),
        Rename(f"{theirs}final_ln.", f"{ours}final_norm."),
        Rename(f"{layer}pre_self_attn_layer_norm.", f"{block}attention_norm."),
        Fuse([f"{own}{name}_proj.weight" for name in "qkv"], f"{block}attention.qkv.weight"),
        Rename(f"{own}out_proj.weight", f"{block}attention.out.weight"),
        Rename(f"{layer}self_attn_layer_norm.", f"{block}attention_post_norm."),
        Rename(f"{layer}glu.ln0.", f"{block}feedforward_norm."),
        Fuse([f"{layer}glu.fc{i}.weight" for i in (0, 1)], f"{block}feedforward.gate_up.weight"),
        Rename(f"{layer}glu.ln1.", f"{block}feedforward.inner_norm."),
        Rename(f"{layer}glu.fc2.weight", f"{block}feedforward.down.weight"),
    ]
    if theirs == "decoder.":
        rows += [
            Rename(f"{layer}pre_encoder_attn_layer_norm.", f"{block}cross_attention_norm."),
            Rename(f"{cross}q_proj.weight", f"{block}cross_attention.q.weight"),
            Fuse([f"{cross}{n}_proj.weight" for n in "kv"], f"{block}cross_attention.kv.weight"),
            Rename(f"{cross}out_proj.weight", f"{block}cross_attention.out.weight"),
            Rename(f"{layer}encoder_attn_layer_norm.", f"{block}cross_attention_post_norm."),
        ]
    return rows


FORMAT = Format(
    NAME, "generator", read_config, write_config, weight_map, model_types=("dallebart",)
)
