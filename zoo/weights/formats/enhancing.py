"""ViT-VQGAN as enhancing-transformers stores it (the public ones, of ImageNet): what stands below
`model.params` in its YAML files, of the first version (`hparams`, `qparams`) or the later one
(`encoder`, `decoder`, `quantizer`). Pixels are in [0, 1]; positions are sines that lie in the file.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._text import need
from zoo.weights.formats._vqgan import checked
from zoo.weights.formats.keys import Keys
from zoo.weights.map import Drop, Rename, Reshape, Squeeze, Transpose, WeightMap

NAME = "enhancing-vitvqgan"


def read_config(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of the arguments of a `ViTVQ`."""
    keys = Keys(content)
    first = "hparams" in keys  # the first version, in which both halves are alike
    table = keys.section("qparams" if first else "quantizer")
    outer = keys.section("hparams") if first else keys
    image, patch = outer.pair("image_size"), outer.pair("patch_size")
    channels = outer.take("channels", 3)
    halves = {}
    for name in ("encoder", "decoder"):
        part = outer if first else keys.section(name)
        halves[name] = {"kind": "vit", "patch": patch, "backbone": _stack(part)}
        if not first:
            part.finish(NAME)
    node = {
        **halves,
        "image": image,
        "channels": channels,
        "span": [0.0, 1.0],
        "quantizer": {
            "kind": "vq",
            "size": need(table, "n_embed", int),
            "width": need(table, "embed_dim", int),
            "l2": table.take("use_norm", True),
            "commitment": table.take("beta", 0.25),
        },
    }
    node["decoder"]["pixel_bias"] = False
    table.only("use_residual", False)
    table.only("num_quantizers", None)
    table.finish(NAME)
    if first:
        outer.finish(NAME)
    keys.ignore("image_key", "loss", "path", "ignore_keys", "scheduler")
    keys.finish(NAME)
    return node


def _stack(part: Keys) -> dict[str, Any]:
    return {
        "kind": "transformer",
        "depth": need(part, "depth", int),
        "width": need(part, "dim", int),
        "position": "learned-grid",
        "attention": {
            "kind": "multihead",
            "heads": need(part, "heads", int),
            "head_dim": part.take("dim_head", 64),
            "qkv_bias": False,
        },
        "feedforward": {
            "kind": "mlp",
            "hidden": need(part, "mlp_dim", int),
            "activation": "tanh",
        },
    }


def write_config(config: Any) -> dict[str, Any]:
    """Returns the arguments of a `ViTVQ`, of the later version; raises ConfigError for what they
    cannot say."""
    kinds = (config.encoder.zoo_kind, getattr(config.decoder, "zoo_kind", None))
    if kinds != ("vit", "vit") or config.quantizer.zoo_kind != "vq":
        raise ConfigError(f"Format {NAME!r} holds two vit codecs and a vq quantizer.")
    public: dict[str, Any] = {
        "image_size": list(config.image),
        "patch_size": list(config.encoder.patch),
        "channels": config.channels,
        "quantizer": {
            "embed_dim": config.quantizer.width,
            "n_embed": config.quantizer.size,
            "use_norm": config.quantizer.l2,
        },
    }
    for name in ("encoder", "decoder"):
        stack = getattr(config, name).backbone
        if stack.attention.zoo_kind != "multihead":
            raise ConfigError(f"Format {NAME!r} holds multihead attention alone.")
        heads, _, head_dim = stack.attention.shape(stack.width)
        public[name] = {
            "dim": stack.width,
            "depth": stack.depth,
            "heads": heads,
            "mlp_dim": stack.feedforward.inner(stack.width),
            "dim_head": head_dim,
        }
    return checked(FORMAT, config, public)


def weight_map(config: Any) -> WeightMap:
    """Returns the table of a file."""
    (p, r), channels = config.encoder.factor, config.channels
    inputs = channels * p * r
    into, out = config.encoder.width, config.decoder.width
    rows = [
        Rename(
            "encoder.to_patch_embedding.0.weight",
            "encoder.patches.map.weight",
            Reshape((into, channels, p, r), (into, inputs)),
        ),
        Rename("encoder.to_patch_embedding.0.bias", "encoder.patches.map.bias"),
        Rename(
            "decoder.to_pixel.1.weight",
            "decoder.patches.map.weight",
            Reshape((out, channels, p, r), (out, inputs)),
            Transpose(),
        ),
        Rename("decoder.to_pixel.1.bias", "decoder.patches.bias"),
        Rename("quantizer.embedding.weight", "quantizer.table"),
        Rename("pre_quant.", "quantizer.project_in."),
        Rename("post_quant.", "quantizer.project_out."),
        Drop("loss."),  # a discriminator and LPIPS
    ]
    for half, short in (("encoder", "en"), ("decoder", "de")):
        theirs, ours = f"{half}.transformer.layers.*.", f"{half}.backbone.layers.*."
        position = f"{half}.backbone.positions.0.weight"
        rows += [
            Rename(f"{half}.{short}_pos_embedding", position, Squeeze(0)),
            Rename(f"{theirs}0.norm.", f"{ours}attention_norm."),
            Rename(f"{theirs}0.fn.to_qkv.weight", f"{ours}attention.qkv.weight"),
            Rename(f"{theirs}0.fn.to_out.", f"{ours}attention.out."),
            Rename(f"{theirs}1.norm.", f"{ours}feedforward_norm."),
            Rename(f"{theirs}1.fn.net.0.", f"{ours}feedforward.up."),
            Rename(f"{theirs}1.fn.net.2.", f"{ours}feedforward.down."),
            Rename(f"{half}.transformer.norm.", f"{half}.backbone.final_norm."),
        ]
    return WeightMap(rows)


FORMAT = Format(NAME, "visual-codes", read_config, write_config, weight_map, marker="quantizer")
