"""VQ-GAN as taming-transformers, diffusers (`VQModel`), LlamaGen and Janus store it.

LlamaGen and Janus look codes up by their cosine. (transformers' `JanusVQVAE` compares vectors with
the table as it is stored and normalises only what it gives back, which is the same where the rows
have length 1; the original, and this, normalise both.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._vqgan import (
    Names,
    checked,
    network,
    network_rows,
    quantizer_rows,
    same_network,
)
from zoo.weights.formats.keys import Keys
from zoo.weights.map import Drop, WeightMap

__all__ = ["FORMATS"]

DIFFUSERS = Names(
    down="encoder.down_blocks.{}.",
    up="decoder.up_blocks.{}.",
    up_from_full=False,
    block="resnets.*.",
    attention="attentions.*.",
    downsample="downsamplers.0.",
    upsample="upsamplers.0.",
    middle=("mid_block.resnets.0.", "mid_block.attentions.0.", "mid_block.resnets.1."),
    shortcut="conv_shortcut.",
    norm_out="conv_norm_out.",
    attention_parts=("group_norm.", "to_q.", "to_k.", "to_v.", "to_out.0."),
    convolved=False,
)
JANUS = Names(up_from_full=False)
LLAMAGEN = Names(
    down="encoder.conv_blocks.{}.",
    up="decoder.conv_blocks.{}.",
    up_from_full=False,
    block="res.*.",
    middle=("mid.0.", "mid.1.", "mid.2."),
)


def quantizer(size: int, width: int, l2: bool = False) -> dict[str, Any]:
    """Returns the quantizer of our node."""
    return {"kind": "vq", "size": size, "width": width, "l2": l2}


def table_of(config: Any, layout: str, kind: str = "vq") -> Any:
    """Returns the quantizer's config; raises ConfigError for another kind of it."""
    if config.quantizer.zoo_kind != kind:
        raise ConfigError(
            f"Format {layout!r} holds a {kind} quantizer, not {config.quantizer.zoo_kind}."
        )
    return config.quantizer


# -- taming ----------------------------------------------------------------------------------------


def read_taming(
    content: Mapping[str, Any], names: Collection[str] = (), gumbel: bool = False
) -> dict[str, Any]:
    """Returns our node of what stands below `model.params` in a YAML file of taming's."""
    keys = Keys(content)
    network_keys = keys.section("ddconfig")
    multipliers = network_keys.take("ch_mult", [1, 2, 4, 8], list)
    resolution = network_keys.take("resolution", 256)
    sizes = [resolution // 2**level for level in range(len(multipliers))]
    seen = network_keys.take("attn_resolutions", [], list)
    half = network(
        channels=network_keys.take("ch", 128),
        multipliers=multipliers,
        blocks=network_keys.take("num_res_blocks", 2),
        latent=network_keys.take("z_channels", 256),
        attention=[level for level, size in enumerate(sizes) if size in seen],
    )
    channels = network_keys.take("in_channels", 3)
    network_keys.only("out_ch", channels)
    network_keys.only("double_z", False)
    network_keys.only("dropout", 0.0)
    network_keys.only("resamp_with_conv", True)
    size, width = keys.take("n_embed", 1024), keys.take("embed_dim", 256)
    node = half | {"image": [resolution, resolution], "channels": channels}
    node["quantizer"] = quantizer(size, width)
    if gumbel:
        node["quantizer"] = {"kind": "gumbel", "size": size, "width": width, "hard": True}
    node["reconstruction"] = {"kind": "l1"}
    keys.ignore("lossconfig", "ckpt_path", "ignore_keys", "image_key", "monitor", "model_type")
    keys.ignore("temperature_scheduler_config", "kl_weight")  # of the training
    network_keys.finish("taming-vqgan")
    keys.finish("taming-vqgan")
    return node


def write_taming(config: Any, gumbel: bool = False) -> dict[str, Any]:
    """Returns what stands below `model.params`."""
    layout = FORMATS[gumbel].name
    encoder = same_network(config, layout)
    table = table_of(config, layout, "gumbel" if gumbel else "vq")
    public = {
        "embed_dim": table.width,
        "n_embed": table.size,
        "ddconfig": {
            "double_z": False,
            "z_channels": encoder.latent,
            "resolution": config.image[0],
            "in_channels": config.channels,
            "out_ch": config.channels,
            "ch": encoder.channels,
            "ch_mult": encoder.multipliers,
            "num_res_blocks": encoder.blocks,
            "attn_resolutions": [config.image[0] // 2**level for level in encoder.attention],
            "dropout": 0.0,
        },
    }
    return checked(FORMATS[gumbel], config, public)


# -- diffusers -------------------------------------------------------------------------------------


def read_diffusers(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of a `VQModel`'s config.json."""
    keys = Keys(content)
    widths = keys.take("block_out_channels", [64], list)
    if any(width % widths[0] for width in widths):
        raise ConfigError(
            f"config.json: 'block_out_channels' {widths} are no multiples of the first."
        )
    for key, known in (
        ("down_block_types", "DownEncoderBlock2D"),
        ("up_block_types", "UpDecoderBlock2D"),
    ):
        if set(keys.take(key, [known], list)) != {known}:
            raise ConfigError(f"config.json: {key!r} may name {known} alone.")
    latent, channels = keys.take("latent_channels", 3), keys.take("in_channels", 3)
    node = network(
        channels=widths[0],
        multipliers=[width // widths[0] for width in widths],
        blocks=keys.take("layers_per_block", 1),
        latent=latent,
        attention=[],
        middle_attention=keys.take("mid_block_add_attention", True),
        groups=keys.take("norm_num_groups", 32),
    )
    size = keys.take("sample_size", 32)
    node |= {"channels": channels, "image": [size, size], "reconstruction": {"kind": "l1"}}
    width = keys.take("vq_embed_dim", latent)
    node["quantizer"] = quantizer(keys.take("num_vq_embeddings", 256), width)
    keys.only("out_channels", channels)
    keys.only("act_fn", "silu")
    keys.only("norm_type", "group")
    keys.ignore(
        "_class_name", "_diffusers_version", "_name_or_path", "scaling_factor",
        "lookup_from_codebook", "force_upcast",
    )  # fmt: skip
    keys.finish("diffusers-vq")
    return node


def write_diffusers(config: Any) -> dict[str, Any]:
    """Returns a config.json."""
    encoder, table = same_network(config, "diffusers-vq"), table_of(config, "diffusers-vq")
    levels = len(encoder.multipliers)
    public = {
        "_class_name": "VQModel",
        "in_channels": config.channels,
        "out_channels": config.channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [encoder.channels * factor for factor in encoder.multipliers],
        "layers_per_block": encoder.blocks,
        "act_fn": "silu",
        "latent_channels": encoder.latent,
        "sample_size": config.image[0],
        "num_vq_embeddings": table.size,
        "norm_num_groups": encoder.norm_groups,
        "vq_embed_dim": table.width,
        "mid_block_add_attention": encoder.middle_attention,
        "lookup_from_codebook": True,
        "force_upcast": True,
    }
    return checked(DIFFUSERS_FORMAT, config, public)


# -- LlamaGen and Janus ----------------------------------------------------------------------------


def read_janus(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of a `JanusVQVAE`'s config.json, or of the same keys for LlamaGen."""
    keys = Keys(content)
    keys.architecture("JanusVQVAE")
    multipliers = keys.take("channel_multiplier", [1, 1, 2, 2, 4], list)
    channels = keys.take("in_channels", 3)
    last = len(multipliers) - 1
    node = network(
        channels=keys.take("base_channels", 128),
        multipliers=multipliers,
        blocks=keys.take("num_res_blocks", 2),
        latent=keys.take("latent_channels", 256),
        attention=[last],
    )
    side = keys.take("num_patches", 32) * 2**last
    width = keys.take("embed_dim", 8)
    node |= {"channels": channels, "image": [side, side]}
    node["quantizer"] = quantizer(keys.take("num_embeddings", 16384), width, l2=True)
    keys.only("out_channels", channels)
    keys.only("double_latent", False)
    keys.only("dropout", 0.0)
    keys.ignore(
        "projection_dim", "num_hidden_layers", "hidden_act", "image_token_embed_dim",
        "initializer_range",
    )  # fmt: skip
    keys.ignore_generic()
    keys.finish("transformers-janus-vq")
    return node


def write_janus(config: Any, layout: str = "transformers-janus-vq") -> dict[str, Any]:
    """Returns a config.json."""
    encoder, table = same_network(config, layout), table_of(config, layout)
    public = {
        "model_type": "janus_vqgan",
        "architectures": ["JanusVQVAE"],
        "in_channels": config.channels,
        "out_channels": config.channels,
        "base_channels": encoder.channels,
        "channel_multiplier": encoder.multipliers,
        "num_res_blocks": encoder.blocks,
        "latent_channels": encoder.latent,
        "embed_dim": table.width,
        "num_embeddings": table.size,
        "num_patches": config.image[0] // encoder.factor[0],
    }
    return checked(JANUS_FORMAT, config, public)


# -- tables ----------------------------------------------------------------------------------------


def weight_map(
    config: Any, names: Names, dropped: tuple[str, ...] = (), gumbel: bool = False
) -> WeightMap:
    """Returns the table of a file."""
    rows = network_rows(config, names, ("encoder", "decoder"))
    rows += quantizer_rows(config, gumbel)
    return WeightMap([*rows, Drop(*dropped)] if dropped else rows)


_TRAINING = ("loss.",)  # a discriminator and LPIPS travel with taming's checkpoints
_TAMED = [
    Format(
        name=name,
        kind="visual-codes",
        read_config=partial(read_taming, gumbel=gumbel),
        write_config=partial(write_taming, gumbel=gumbel),
        weight_map=partial(weight_map, names=Names(), dropped=_TRAINING, gumbel=gumbel),
    )
    for name, gumbel in (("taming-vqgan", False), ("taming-gumbel", True))
]
DIFFUSERS_FORMAT = Format(
    name="diffusers-vq",
    kind="visual-codes",
    read_config=read_diffusers,
    write_config=write_diffusers,
    weight_map=partial(weight_map, names=DIFFUSERS),
    class_names=("VQModel",),
    file="diffusion_pytorch_model.safetensors",
)
JANUS_FORMAT = Format(
    name="transformers-janus-vq",
    kind="visual-codes",
    read_config=read_janus,
    write_config=write_janus,
    weight_map=partial(weight_map, names=JANUS),
    model_types=("janus_vqgan",),
)
LLAMAGEN_FORMAT = Format(
    name="llamagen-vq",
    kind="visual-codes",
    read_config=read_janus,
    write_config=partial(write_janus, layout="llamagen-vq"),
    weight_map=partial(weight_map, names=LLAMAGEN, dropped=("quantize.codebook_used",)),
)
FORMATS = (*_TAMED, DIFFUSERS_FORMAT, JANUS_FORMAT, LLAMAGEN_FORMAT)
