"""What the public Conformers share: the layers of transformers' Parakeet and LASR, features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.registry import to_mapping
from zoo.weights.formats import _lossless
from zoo.weights.formats._text import NOT_STORED, NOT_STORED_OF_A_BLOCK
from zoo.weights.formats.keys import Keys, public_activation
from zoo.weights.map import Fuse, Rename, Rule, Squeeze

__all__ = [
    "FEATURES",
    "ORDER",
    "checked",
    "convolution_rows",
    "layer_rows",
    "read_encoder",
    "read_features",
    "write_encoder",
]

FEATURES = "preprocessor_config.json"
ORDER = ["feedforward", "attention", "convolution", "feedforward"]
# the window's length, hop and Fourier transform of all of them, in samples
SIZES = {"win_length": ("window", 400), "hop_length": ("hop", 160), "n_fft": ("fft", 512)}


def read_encoder(keys: Keys) -> dict[str, Any]:
    """Returns our backbone of the keys that Parakeet and LASR share; marks those that only
    training reads."""
    width, heads = keys.take("hidden_size", 1024), keys.take("num_attention_heads", 8)
    kv_heads = keys.take("num_key_value_heads", heads)
    activation, bias = keys.activation("hidden_act", "silu"), keys.take("attention_bias", True)
    keys.only("dropout_positions", 0, 0.0, None)
    keys.ignore("layerdrop", "max_position_embeddings")  # of training; a size of a table
    return {
        "kind": "transformer",
        "depth": keys.take("num_hidden_layers", 24),
        "width": width,
        "attention": {
            "heads": heads,
            "kv_heads": None if kv_heads == heads else kv_heads,
            "qkv_bias": bias,
            "out_bias": bias,
            "dropout": keys.take("attention_dropout", 0.1),
        },
        "feedforward": {
            "hidden": keys.take("intermediate_size", 4 * width),
            "activation": activation,
            "bias": bias,
            "dropout": keys.take("activation_dropout", 0.1),
        },
        "convolution": {
            "kind": "gated",
            "kernel": keys.take("conv_kernel_size", 9),
            "bias": keys.take("convolution_bias", True),
            "activation": activation,
        },
        "order": ORDER,
        "block_norm": True,
        "dropout": keys.take("dropout", 0.1),
        "init_std": keys.take("initializer_range", 0.02),
    }


def write_encoder(config: Any) -> dict[str, Any]:
    """Returns the keys of `read_encoder`."""
    backbone = config.backbone
    heads, kv_heads, _ = backbone.attention.shape(backbone.width)
    return {
        "hidden_size": backbone.width,
        "num_hidden_layers": backbone.depth,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": backbone.feedforward.inner(backbone.width),
        "hidden_act": public_activation(backbone.feedforward.activation),
        "attention_bias": backbone.attention.qkv_bias,
        "convolution_bias": getattr(backbone.convolution, "bias", True),
        "conv_kernel_size": getattr(backbone.convolution, "kernel", 9),
        "attention_dropout": backbone.attention.dropout,
        "activation_dropout": backbone.feedforward.dropout,
        "dropout": backbone.dropout,
        "layerdrop": 0.0,
        "initializer_range": backbone.init_std,
        "num_mel_bins": config.sound.filterbank.bins,
        "subsampling_conv_channels": config.sound.subsampling.channels,
        "subsampling_conv_kernel_size": config.sound.subsampling.kernel,
    }


def read_features(
    content: Mapping[str, Any], bins: int, usual: Mapping[str, Any], extractor: str
) -> dict[str, Any]:
    """Returns our filterbank of a preprocessor_config.json, or the family's own without one."""
    bank = {**usual, "bins": bins}
    if not content:
        return bank
    keys = Keys(content, FEATURES)
    keys.ignore(
        "processor_class", "feature_extractor_type", "return_attention_mask", "padding_side",
        "padding_value", "_processor_class",
    )  # fmt: skip
    keys.only("feature_extractor_type", extractor, None)
    keys.only("feature_size", bins)
    keys.only("preemphasis", bank["preemphasis"], None)
    bank["rate"] = keys.take("sampling_rate", 16000)
    for theirs, (ours, default) in SIZES.items():
        bank[ours] = keys.take(theirs, default)
    keys.finish("transformers")
    return bank


def layer_rows(bias: bool, relative: bool) -> list[Rule]:
    """Returns the rows of transformers' Parakeet and LASR layers."""
    theirs, ours = "encoder.layers.*.", "backbone.layers.*."
    norms = {
        "norm_feed_forward1": "feedforward_norm",
        "norm_self_att": "attention_norm",
        "norm_conv": "convolution_norm",
        "norm_feed_forward2": "feedforward_2_norm",
        "norm_out": "block_norm",
    }
    rows: list[Rule] = [
        Rename(f"{theirs}feed_forward1.linear1.", f"{ours}feedforward.up."),
        Rename(f"{theirs}feed_forward1.linear2.", f"{ours}feedforward.down."),
        Rename(f"{theirs}feed_forward2.linear1.", f"{ours}feedforward_2.up."),
        Rename(f"{theirs}feed_forward2.linear2.", f"{ours}feedforward_2.down."),
        Fuse([f"{theirs}self_attn.{p}_proj." for p in "qkv"], f"{ours}attention.qkv."),
        Rename(f"{theirs}self_attn.o_proj.", f"{ours}attention.out."),
        *convolution_rows(f"{theirs}conv.", f"{ours}convolution.", "norm", bias),
        *(Rename(f"{theirs}{a}.", f"{ours}{b}.") for a, b in norms.items()),
    ]
    if relative:
        part = f"{ours}attention.relative."
        rows += [
            Rename(f"{theirs}self_attn.relative_k_proj.", f"{part}project."),
            Rename(f"{theirs}self_attn.bias_u", f"{part}content_bias"),
            Rename(f"{theirs}self_attn.bias_v", f"{part}position_bias"),
        ]
    return rows


def convolution_rows(theirs: str, ours: str, norm: str, bias: bool) -> list[Rule]:
    """Returns the rows of a convolution module that PyTorch's Conv1d and BatchNorm1d make up."""
    pairs = {"pointwise_conv1": "up", "depthwise_conv": "depthwise", "pointwise_conv2": "down"}
    rows: list[Rule] = []
    for a, b in pairs.items():
        squeeze = Squeeze(1 if b == "depthwise" else 2)
        rows.append(Rename(f"{theirs}{a}.weight", f"{ours}{b}.weight", squeeze))
        if bias:
            rows.append(Rename(f"{theirs}{a}.bias", f"{ours}{b}.bias"))
    return rows + batch_norm_rows(f"{theirs}{norm}.", f"{ours}norm.")


def batch_norm_rows(theirs: str, ours: str) -> list[Rule]:
    """Returns the rows of a batch norm."""
    names = {
        "weight": "weight",
        "bias": "bias",
        "running_mean": "mean",
        "running_var": "variance",
        "num_batches_tracked": "batches",
    }
    return [Rename(theirs + a, ours + b) for a, b in names.items()]


def checked(format: Any, config: Any, public: dict[str, Any]) -> dict[str, Any]:
    """Returns `public` if reading it gives a model that computes what `config` says; raises
    ConfigError naming what would be lost."""
    return _lossless.checked(format, config, public, computation)


def computation(config: Any) -> dict[str, Any]:
    """Returns what decides the numbers, the same for two ways to write the same."""
    plain = to_mapping(config, omit=NOT_STORED)
    backbone = config.backbone
    keep = {"order", "position", "final_norm", "block_norm", "depth"}
    omit = tuple(key for key in NOT_STORED_OF_A_BLOCK if key not in keep)
    stack = to_mapping(backbone, omit=(*omit, "layers", "parallel_norms"))
    heads, kv_heads, head_dim = backbone.attention.shape(backbone.width)
    attention = {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "dropout": None}
    scale = getattr(backbone.attention, "scale", None) or head_dim**-0.5
    stack["attention"].update(attention, scale=scale, kernel=None)
    stack["feedforward"].update(
        hidden=backbone.feedforward.inner(backbone.width), ratio=None, dropout=None
    )
    if stack["convolution"] is not None:
        stack["convolution"]["momentum"] = None  # of training
    if config.sound.zoo_kind == "spectrogram":
        bank = plain["sound"]["filterbank"]
        bank["high"] = bank["high"] or bank["rate"] / 2
    return {**plain, "backbone": stack}
