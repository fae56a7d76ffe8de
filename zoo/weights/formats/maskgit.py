"""MaskGIT as open-muse stores it: the VQ-GAN (`MaskGitVQGAN`) and the masked transformer over its
codes and a class (`MaskGitTransformer`).

The VQ-GAN sees pixels in [0, 1]. Its blocks have no biases, halve by means, and where they change
the width the 1x1 convolution reads what the block adds, not its input, as in the original's code.

Tokens of the transformer are codes | classes | spare ones, the last of which is the mask; a head
that scores all of them is read on its codes alone. No class stands for none.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.registry import resolve, to_mapping
from zoo.weights.formats import Format, _vqgan
from zoo.weights.formats._text import checked, holds
from zoo.weights.formats._vqgan import Names, network, network_rows
from zoo.weights.formats.keys import Keys, show
from zoo.weights.formats.vqgan import quantizer, table_of
from zoo.weights.map import Fuse, Rename, Reorder, Rule, Split, WeightMap

__all__ = ["FORMATS"]

TOKENIZER, TRANSFORMER = "open-muse-maskgit-vqgan", "open-muse-maskgit"
NAMES = Names(upsample="upsample_", middle=("mid.0.", "", "mid.1."))
DRAWN = {"guidance": 1.0}  # no class is none, so nothing is led away from
OUTER = ("_class_name", "_version", "_name_or_path")


# -- the tokenizer ---------------------------------------------------------------------------------


def read_tokenizer(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of a `MaskGitVQGAN`'s config.json."""
    keys = Keys(content)
    latent, side = keys.take("z_channels", 256), keys.take("resolution", 256)
    keys.only("num_res_blocks", 2)
    keys.only("quantized_embed_dim", latent)
    keys.only("dropout", 0.0)
    multipliers = list(keys.take("channel_mult", [1, 1, 2, 2, 4], list, tuple))
    halves = network(
        channels=keys.take("hidden_channels", 128),
        multipliers=multipliers,
        blocks=2,
        latent=latent,
        attention=[],
        middle_attention=False,
    )
    for half in halves.values():
        half |= {"blocks": 2, "block_bias": False, "shortcut": "output"}
    halves["encoder"] |= {"halving": "mean", "edge_kernel": 1, "edge_bias": False}
    node = halves | {
        "image": [side, side],
        "channels": keys.take("num_channels", 3),
        "span": [0.0, 1.0],
        "quantizer": quantizer(keys.take("num_embeddings", 1024), None),  # type: ignore[arg-type]
        "reconstruction": {"kind": "l2"},
    }
    # what its code ignores, of the training, and computed from the others
    keys.ignore("attn_resolutions", "resample_with_conv", "commitment_cost", "num_resolutions")
    keys.ignore("reduction_factor", "latent_size", *OUTER)
    keys.finish(TOKENIZER)
    return node


def write_tokenizer(config: Any) -> dict[str, Any]:
    """Returns a config.json; raises ConfigError for what it cannot say."""
    encoder = config.encoder
    if encoder.zoo_kind != "vqgan":
        raise ConfigError(f"Format {TOKENIZER!r} holds vqgan encoders and decoders alone.")
    public = {
        "_class_name": "MaskGitVQGAN",
        "resolution": config.image[0],
        "num_channels": config.channels,
        "hidden_channels": encoder.channels,
        "channel_mult": list(encoder.multipliers),
        "num_res_blocks": 2,
        "z_channels": encoder.latent,
        "num_embeddings": table_of(config, TOKENIZER).size,
        "quantized_embed_dim": encoder.latent,
    }
    return _vqgan.checked(FORMATS[0], config, public)


def tokenizer_map(config: Any) -> WeightMap:
    """Returns the table of a file."""
    rows = network_rows(config, NAMES, ("encoder", "decoder"))
    return WeightMap([*rows, Rename("quantize.embedding.weight", "quantizer.table")])


# -- the transformer -------------------------------------------------------------------------------


def read_transformer(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of a `MaskGitTransformer`'s config.json, of the kind that draws classes."""
    keys = Keys(content)
    classes, count = keys.take("num_classes", 0), keys.take("num_vq_tokens", 256)
    side = math.isqrt(count)
    if not classes or side * side != count:
        key = "num_vq_tokens" if classes else "num_classes"
        raise ConfigError(
            f"{keys.where}: {key!r} = {show(content.get(key))}: read here is what draws squares "
            "of codes from classes."
        )
    if "vocab_size" not in keys:
        raise ConfigError(f"{keys.where}: 'vocab_size' is missing.")
    codes, tokens = keys.take("codebook_size", 1024), keys.take("vocab_size")
    if tokens < codes + classes + 1:
        raise ConfigError(f"{keys.where}: 'vocab_size' = {tokens} has no room for a mask.")
    bias, eps = keys.take("use_bias", False), keys.take("layer_norm_eps", 1e-5, float)
    layer = {"kind": "layer", "eps": eps, "bias": bias}
    kind = keys.take("norm_type", "layernorm", str)
    if kind not in ("layernorm", "rmsnorm"):
        raise ConfigError(f"{keys.where}: 'norm_type' = {show(kind)} is not supported.")
    norm = layer if kind == "layernorm" else {"kind": "rms", "eps": eps}
    former = keys.take("use_normformer", True)
    keys.only("add_cross_attention", False)
    keys.only("use_mlm_layer", True)
    keys.only("use_mlm_layernorm", True)
    keys.only("use_conv_in_out", False)
    keys.only("patch_size", 1)
    keys.only("mask_token_id", tokens - 1)
    keys.ignore("embedding_size", "encoder_hidden_size", "project_encoder_hidden_states", *OUTER)
    own = keys.take("use_codebook_size_for_output", False)
    node = {
        "codes": codes,
        "grid": [side, side],
        "code_rows": tokens - classes,
        "classes": classes,
        "learned_nothing": False,
        "spare_scores": 0 if own else tokens - codes,
        "transform": "gelu",
        "transform_bias": bias,
        "head_bias": bias,
        "sampling": DRAWN,
        "backbone": {
            "kind": "transformer",
            "depth": keys.take("num_hidden_layers", 12),
            "width": keys.take("hidden_size", 768),
            "length": keys.take("max_position_embeddings", 256),
            "norm": norm,
            "feedforward_norm": None if norm == layer else layer,  # always a layer norm
            "placement": "both" if former else "pre",
            "post_norms": ["attention"],
            "final_norm": keys.take("use_encoder_layernorm", True),
            "position": "learned",
            "attention": {
                "kind": "multihead",
                "heads": keys.take("num_attention_heads", 12),
                "qkv_bias": bias,
                "out_bias": bias,
                "dropout": keys.take("attention_dropout", 0.1),
            },
            "feedforward": {
                "kind": "gated",
                "activation": "gelu",
                "hidden": keys.take("intermediate_size", 3072),
                "bias": bias,
                "inner_norm": norm if former else None,
            },
            "dropout": keys.take("hidden_dropout", 0.1),
            "init_std": keys.take("initializer_range", 0.02),
        },
    }
    keys.finish(TRANSFORMER)
    return node


def write_transformer(config: Any) -> dict[str, Any]:
    """Returns a config.json; raises ConfigError for what it cannot say."""
    backbone = config.backbone
    if backbone.zoo_kind != "transformer" or not config.classes:
        raise ConfigError(f"Format {TRANSFORMER!r} holds a transformer that draws classes.")
    if config.visual is not None:
        raise ConfigError(f"visual: format {TRANSFORMER!r} holds the transformer alone.")
    holds(TRANSFORMER, config, norm=backbone.norm.zoo_kind, feedforward="gated", position="learned")
    layer = backbone.norm.zoo_kind == "layer"
    public = {
        "_class_name": "MaskGitTransformer",
        "vocab_size": config.rows + config.classes,
        "hidden_size": backbone.width,
        "num_hidden_layers": backbone.depth,
        "num_attention_heads": backbone.attention.shape(backbone.width)[0],
        "intermediate_size": backbone.feedforward.inner(backbone.width),
        "hidden_dropout": backbone.dropout,
        "attention_dropout": backbone.attention.dropout,
        "max_position_embeddings": backbone.position[0].length or backbone.length,
        "initializer_range": backbone.init_std,
        "norm_type": "layernorm" if layer else "rmsnorm",
        "layer_norm_eps": backbone.norm.eps,
        "use_normformer": backbone.placement == "both",
        "use_encoder_layernorm": backbone.final_norm,
        "use_bias": config.head_bias,
        "codebook_size": config.codebook,
        "num_vq_tokens": math.prod(config.shape),
        "num_classes": config.classes,
        "use_codebook_size_for_output": not config.spare_scores,
        "mask_token_id": config.rows + config.classes - 1,
    }
    same = resolve("model", {**to_mapping(config), "labels": [], "sampling": DRAWN})
    return checked(FORMATS[1], same, public)


def transformer_map(config: Any) -> WeightMap:
    """Returns the table of a file."""
    codes, classes, backbone = config.codebook, config.classes, config.backbone
    spare = config.rows - codes
    order = Reorder((codes, classes, spare), (0, 2, 1))
    theirs, ours = "transformer_layers.*.", "backbone.layers.*."
    rows: list[Rule] = [
        Split(
            "embed.word_embeddings.weight",
            ["embedding.table.weight", "prompt.classes.weight"],
            order,
            sizes=(config.rows, classes),
        ),
        Rename("embed.position_embeddings.weight", "backbone.positions.0.weight"),
        Rename(f"{theirs}attn_layer_norm.", f"{ours}attention_norm."),
        Fuse(
            [f"{theirs}attention.{name}." for name in ("query", "key", "value")],
            f"{ours}attention.qkv.",
        ),
        Rename(f"{theirs}attention.out.", f"{ours}attention.out."),
        Rename(f"{theirs}ffn.pre_mlp_layer_norm.", f"{ours}feedforward_norm."),
        Fuse([f"{theirs}ffn.wi_0.", f"{theirs}ffn.wi_1."], f"{ours}feedforward.gate_up."),
        Rename(f"{theirs}ffn.wo.", f"{ours}feedforward.down."),
        Rename("mlm_layer.mlm_dense.", "head.dense."),
        Rename("mlm_layer.mlm_ln.", "head.norm."),
        Rename("mlm_layer.to_logits.weight", "head.weight"),
    ]
    if backbone.placement == "both":
        rows += [
            Rename(f"{theirs}post_attn_layer_norm.", f"{ours}attention_post_norm."),
            Rename(f"{theirs}ffn.mid_mlp_layer_norm.", f"{ours}feedforward.inner_norm."),
        ]
    if backbone.final_norm:
        rows.append(Rename("encoder_layer_norm.", "backbone.final_norm."))
    if config.head_bias:
        rows.append(Rename("mlm_layer.to_logits.bias", "head.bias"))
    return WeightMap(rows)


FORMATS = (
    Format(
        TOKENIZER,
        "visual-codes",
        read_tokenizer,
        write_tokenizer,
        tokenizer_map,
        class_names=("MaskGitVQGAN",),
        file="pytorch_model.safetensors",
    ),
    Format(
        TRANSFORMER,
        "generator",
        read_transformer,
        write_transformer,
        transformer_map,
        class_names=("MaskGitTransformer",),
        file="pytorch_model.safetensors",
    ),
)
