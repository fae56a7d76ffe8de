"""DALL-E's discrete VAE: transformers' `FlavaImageCodebook` (the encoder alone) and OpenAI's names.

Both hold the same encoder, bit for bit. The decoder is public only as a whole Python object in a
pickle, which is not opened here; `dalle-dvae` is for its tensors, saved by someone who trusts it:

    save_file({f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()} | …)
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._vqgan import checked
from zoo.weights.formats.keys import Keys
from zoo.weights.map import Optional, Rename, Rule, Squeeze, Transpose, WeightMap

__all__ = ["FORMATS"]

FLAVA, OPENAI = "transformers-flava-codebook", "dalle-dvae"


def node(channels: int, groups: int, blocks: int, size: int, colours: int) -> dict[str, Any]:
    """Returns our node of an encoder."""
    return {
        "image": [112, 112],
        "channels": colours,
        "span": [0.1, 0.9],
        "interpolation": "lanczos",
        "reconstruction": {"kind": "logit-laplace"},
        "encoder": {"kind": "dvae", "channels": channels, "groups": groups, "blocks": blocks},
        "quantizer": {"kind": "gumbel", "size": size, "bias": True},
        "decoder": None,
    }


def read_flava(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of a `FlavaImageCodebook`'s config.json."""
    keys = Keys(content)
    keys.architecture("FlavaImageCodebook")
    keys.only("num_groups", 4)  # transformers counts with it, and always builds four
    found = node(
        keys.take("hidden_size", 256),
        4,
        keys.take("num_blocks_per_group", 2),
        keys.take("vocab_size", 8192),
        keys.take("input_channels", 3),
    )
    keys.ignore("freeze", "initializer_range")
    keys.ignore_generic()
    keys.finish(FLAVA)
    return found


def write_flava(config: Any) -> dict[str, Any]:
    """Returns a config.json."""
    encoder = _encoder(config, FLAVA)
    public = {
        "model_type": "flava_image_codebook",
        "architectures": ["FlavaImageCodebook"],
        "num_groups": encoder.groups,
        "num_blocks_per_group": encoder.blocks,
        "hidden_size": encoder.channels,
        "vocab_size": config.quantizer.size,
        "input_channels": config.channels,
    }
    return checked(FORMATS[0], config, public)


def read_openai(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of `dall_e`'s constructor arguments, with `n_init` for the decoder's."""
    keys = Keys(content)
    channels, blocks = keys.take("n_hid", 256), keys.take("n_blk_per_group", 2)
    groups = keys.take("group_count", 4)
    size, colours = keys.take("vocab_size", 8192), keys.take("input_channels", 3)
    found = node(channels, groups, blocks, size, colours)
    found["decoder"] = found["encoder"] | {"start": keys.take("n_init", 128)}
    keys.only("output_channels", colours)
    keys.finish(OPENAI)
    return found


def write_openai(config: Any) -> dict[str, Any]:
    """Returns `dall_e`'s constructor arguments."""
    encoder = _encoder(config, OPENAI)
    public = {
        "group_count": encoder.groups,
        "n_hid": encoder.channels,
        "n_blk_per_group": encoder.blocks,
        "vocab_size": config.quantizer.size,
        "input_channels": config.channels,
        "output_channels": config.channels,
        "n_init": getattr(config.decoder, "start", None),
    }
    return checked(FORMATS[1], config, public)


def _encoder(config: Any, layout: str) -> Any:
    if config.encoder.zoo_kind != "dvae" or config.quantizer.zoo_kind != "gumbel":
        raise ConfigError(f"Format {layout!r} holds dvae encoders with a gumbel quantizer alone.")
    return config.encoder


# -- tables ----------------------------------------------------------------------------------------


def flava_map(config: Any) -> WeightMap:
    """Returns the table of a file of the encoder."""
    return WeightMap(
        [
            Rename("blocks.input.", "encoder.input."),
            *_groups(
                config.encoder, "blocks.group_{}.group.block_{}.", "res_path.path.", "encoder"
            ),
            Rename("blocks.output.conv.weight", "quantizer.logits.weight", Squeeze(2, 3)),
            Rename("blocks.output.conv.bias", "quantizer.logits.bias"),
        ],
        prefixes=["image_codebook."],
    )


def openai_map(config: Any) -> WeightMap:
    """Returns the table of a file of both halves."""
    rows: list[Rule] = []
    for half in ("encoder", "decoder"):
        block = half + ".blocks.group_{}.block_{}."
        rows += _groups(getattr(config, half), block, "res_path.", half, "w", "b")
    flat = Squeeze(2, 3)
    return WeightMap(
        [
            *rows,
            *_both("encoder.blocks.input.", "encoder.input."),
            Rename("encoder.blocks.output.conv.w", "quantizer.logits.weight", flat),
            Rename("encoder.blocks.output.conv.b", "quantizer.logits.bias"),
            # a convolution over one-hot codes is a table, plus what all of them share
            Rename("decoder.blocks.input.w", "quantizer.table", flat, Transpose()),
            Rename("decoder.blocks.input.b", "quantizer.bias"),
            *_both("decoder.blocks.output.conv.", "decoder.output."),
        ]
    )


def _both(theirs: str, ours: str, weight: str = "w", bias: str = "b") -> list[Rule]:
    return [Rename(theirs + weight, ours + "weight"), Rename(theirs + bias, ours + "bias")]


def _groups(
    part: Any, block: str, path: str, half: str, weight: str = "weight", bias: str = "bias"
) -> list[Rule]:
    rows: list[Rule] = []
    for group in range(part.groups):
        for index in range(part.blocks):
            theirs = block.format(group + 1, index + 1)
            ours = f"{half}.groups.{group}.{index}."
            for conv in range(1, 5):
                rows += _both(
                    f"{theirs}{path}conv_{conv}.", f"{ours}convs.conv{conv}.1.", weight, bias
                )
            shortcut = _both(theirs + "id_path.", ours + "shortcut.", weight, bias)
            rows += [Optional(row) for row in shortcut]  # only where a group is wider
    return rows


FORMATS = (
    Format(
        name=FLAVA,
        kind="visual-codes",
        read_config=read_flava,
        write_config=write_flava,
        weight_map=flava_map,
        model_types=("flava_image_codebook",),
    ),
    Format(
        name=OPENAI,
        kind="visual-codes",
        read_config=read_openai,
        write_config=write_openai,
        weight_map=openai_map,
    ),
)
