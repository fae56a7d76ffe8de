"""torchaudio's `Conformer`: a state dict without a config, an encoder without positions.

Its config.json, where one is wanted, holds the constructor's arguments and
`"model_type": "torchaudio-conformer"`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._conformer import ORDER, batch_norm_rows, checked
from zoo.weights.formats.keys import Keys
from zoo.weights.map import Rename, Rule, Squeeze, WeightMap

NAME = "torchaudio-conformer"


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of the constructor's arguments."""
    keys = Keys(content)
    keys.ignore("model_type")
    width = keys.take("input_dim", 80)
    first, dropout = keys.take("convolution_first", False), keys.take("dropout", 0.0)
    node = {
        "sound": {
            "kind": "spectrogram",
            "filterbank": {"bins": width},
            "subsampling": {"layout": "none"},
        },
        "backbone": {
            "kind": "transformer",
            "width": width,
            "depth": keys.take("num_layers", 1),
            "attention": {"heads": keys.take("num_heads", 1), "dropout": dropout},
            "feedforward": {
                "hidden": keys.take("ffn_dim", 4 * width),
                "activation": "silu",
                "dropout": dropout,
            },
            "convolution": {
                "kind": "gated",
                "kernel": keys.take("depthwise_conv_kernel_size", 31),
                "norm": "group" if keys.take("use_group_norm", False) else "batch",
            },
            "order": ["feedforward", "convolution", "attention", "feedforward"] if first else ORDER,
            "residual": {"feedforward": [1.0, 0.5]},
            "block_norm": True,
            "final_norm": False,
            "dropout": dropout,
        },
    }
    keys.finish(NAME)
    return node


def write_config(config: Any) -> dict[str, Any]:
    """Returns the constructor's arguments; raises ConfigError for what they cannot say."""
    backbone = config.backbone
    if config.sound.zoo_kind != "spectrogram":
        raise ConfigError(f"Format {NAME!r} has no word for sound {config.sound.zoo_kind!r}.")
    public = {
        "model_type": NAME,
        "input_dim": backbone.width,
        "num_heads": backbone.attention.shape(backbone.width)[0],
        "ffn_dim": backbone.feedforward.inner(backbone.width),
        "num_layers": backbone.depth,
        "depthwise_conv_kernel_size": getattr(backbone.convolution, "kernel", 31),
        "dropout": backbone.dropout,
        "use_group_norm": getattr(backbone.convolution, "norm", None) == "group",
        "convolution_first": backbone.order != ORDER,
    }
    return checked(FORMAT, config, public)


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    theirs, ours = "conformer_layers.*.", "backbone.layers.*."
    module, own = f"{theirs}conv_module.sequential.", f"{ours}convolution."
    group = getattr(config.backbone.convolution, "norm", None) == "group"
    norm = [Rename(f"{module}3.", f"{own}norm.")]
    rows: list[Rule] = [
        Rename(f"{theirs}self_attn.in_proj_weight", f"{ours}attention.qkv.weight"),
        Rename(f"{theirs}self_attn.in_proj_bias", f"{ours}attention.qkv.bias"),
        Rename(f"{theirs}self_attn.out_proj.", f"{ours}attention.out."),
        Rename(f"{theirs}self_attn_layer_norm.", f"{ours}attention_norm."),
        Rename(f"{theirs}conv_module.layer_norm.", f"{ours}convolution_norm."),
        Rename(f"{module}0.weight", f"{own}up.weight", Squeeze(2)),
        Rename(f"{module}0.bias", f"{own}up.bias"),
        Rename(f"{module}2.weight", f"{own}depthwise.weight", Squeeze(1)),
        Rename(f"{module}2.bias", f"{own}depthwise.bias"),
        *(norm if group else batch_norm_rows(f"{module}3.", f"{own}norm.")),
        Rename(f"{module}5.weight", f"{own}down.weight", Squeeze(2)),
        Rename(f"{module}5.bias", f"{own}down.bias"),
        Rename(f"{theirs}final_layer_norm.", f"{ours}block_norm."),
    ]
    for number, name in ((1, "feedforward"), (2, "feedforward_2")):
        rows += [
            Rename(f"{theirs}ffn{number}.sequential.0.", f"{ours}{name}_norm."),
            Rename(f"{theirs}ffn{number}.sequential.1.", f"{ours}{name}.up."),
            Rename(f"{theirs}ffn{number}.sequential.4.", f"{ours}{name}.down."),
        ]
    return WeightMap(rows)


FORMAT = Format(NAME, "speech-encoder", read_config, write_config, weight_map, model_types=(NAME,))
