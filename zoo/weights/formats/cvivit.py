"""Public C-ViViTs: lucidrains' `phenaki_pytorch.CViViT`, and Obvious Research's fork of it, whose
weights are public; both under the arguments of their class, and both with time that leaks.

The package's depthwise convolutions run over the temporal stack, whose sequences are the places of
a clip, as though they were its frames: what is next to each other there is not so in the clip. The
fork has them in the spatial stack too (where they are right), and its temporal attention sees all
times. Here both are axes: `sequences: frames` of the temporal convolution, `causal` of the stack.

| theirs                                        | here                                           |
|-----------------------------------------------|------------------------------------------------|
| queries and keys of length 1, scores times 8  | RMS norms without eps, scores times 8 / head_dim |
| `PEG`                                         | convolution `grid` without norm and feed-forward |
| `spatial_rel_pos_bias` of both directions     | position `continuous` of each                  |
| `to_q` of the norm, `to_kv` of the stream     | `raw_keys`                                     |
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._text import need
from zoo.weights.formats._vqgan import checked
from zoo.weights.formats.keys import Keys
from zoo.weights.map import (
    Compute,
    Drop,
    Fuse,
    Rename,
    Reorder,
    Reshape,
    Rule,
    Squeeze,
    Tie,
    WeightMap,
)

__all__ = ["FORMATS"]

PACKAGE, FORK = "phenaki-pytorch", "obvious-cvivit"
EPS = 1e-24  # of a length that is never 0
SCALE = 8.0  # on scores of vectors of length 1
MEMORY = 0.8  # of the running means of vector_quantize_pytorch
OF_TRAINING = (
    "use_vgg_and_gan", "vgg", "discr_base_dim", "discr_attn_res_layers", "use_hinge_loss",
)  # fmt: skip
OF_THE_FORK_S_TRAINING = (
    "wandb_mode", "local_vgg", "force_cpu", "i3d_model_path", "use_discr", "gp_weight",
    *(f"{name}_loss_w" for name in ("commit", "gen", "perceptual", "i3d", "recon")),
)  # fmt: skip


# -- configs ---------------------------------------------------------------------------------------


def read_config(
    content: dict[str, Any], names: Collection[str] = (), fork: bool = False
) -> dict[str, Any]:
    """Returns our node of the arguments of a `CViViT`."""
    keys = Keys(content)
    width, size = need(keys, "dim", int), need(keys, "codebook_size", int)
    image, patch = keys.pair("image_size"), keys.pair("patch_size")
    frames = need(keys, "temporal_patch_size", int)
    heads, head_dim = keys.take("heads", 8), keys.take("dim_head", 64)
    ratio = keys.take("ff_mult", 4.0, float) if fork else 4.0
    shared = {
        "kind": "transformer",
        "width": width,
        "norm": {"kind": "layer", "bias": False},
        "feedforward_norm": {"kind": "layer"},
        "raw_keys": True,
        "attention": {
            "kind": "multihead",
            "heads": heads,
            "head_dim": head_dim,
            "scale": SCALE / head_dim,
            "qkv_bias": False,
            "out_bias": False,
            "qk_norm": {"kind": "rms", "eps": EPS},
            "dropout": keys.take("attn_dropout", 0.0),
        },
        "feedforward": {
            "kind": "gated",
            "activation": "gelu",
            "hidden": int(ratio * (2 / 3) * width),
            "bias": False,
            "dropout": keys.take("ff_dropout", 0.0),
        },
    }
    convolved = {
        "order": ["convolution", "attention", "feedforward"],
        "pre_norms": ["attention", "feedforward"],
        "convolution": {
            "kind": "grid",
            "times": 3,
            "causal": True,
            "norm": None,
            "feedforward": None,
        },
    }
    spatial = shared | {
        "depth": need(keys, "spatial_depth", int),
        "position": {"kind": "continuous", "layers": 2, "slope": 0.1},
    }
    temporal = shared | {"depth": need(keys, "temporal_depth", int), **convolved}
    if fork:
        spatial |= convolved
    else:
        temporal |= {"causal": True, "position": "alibi"}
    half = {
        "kind": "cvivit",
        "patch": patch,
        "frames": frames,
        "time_leaks": True,
        "spatial": spatial,
        "temporal": temporal,
    }
    node = {
        "image": image,
        "channels": keys.take("channels", 3),
        "span": [0.0, 1.0],
        "encoder": half | {"patch_norm": "layer"},
        "decoder": half,
    }
    inner = keys.take("codebook_dim", 32) if fork else width
    node["quantizer"] = {
        "kind": "vq",
        "size": size,
        "width": None if inner == width else inner,
        "l2": True,
        "ema": MEMORY,
    }
    if not fork and keys.take("lookup_free_quantization", True):
        keys.only("lookup_free_quantization_kwargs", {}, None)
        if size & (size - 1):
            raise ConfigError(f"{keys.where}: 'codebook_size' = {size} is no power of two.")
        node["quantizer"] = {"kind": "lfq", "bits": size.bit_length() - 1}
    keys.ignore(*OF_TRAINING, *(OF_THE_FORK_S_TRAINING if fork else ()))
    keys.finish(FORK if fork else PACKAGE)
    return node


def write_config(config: Any, fork: bool = False) -> dict[str, Any]:
    """Returns the arguments of a `CViViT`; raises ConfigError for what they cannot say."""
    chosen, half, table = FORMATS[fork], config.encoder, config.quantizer
    if half.zoo_kind != "cvivit" or config.decoder is None:
        raise ConfigError(f"Format {chosen.name!r} holds a C-ViViT with both its halves.")
    if table.zoo_kind not in (("vq",) if fork else ("vq", "lfq")):
        raise ConfigError(f"Format {chosen.name!r} has no quantizer {table.zoo_kind!r}.")
    if half.spatial.attention.zoo_kind != "multihead":
        raise ConfigError(f"Format {chosen.name!r} holds multihead attention alone.")
    heads, _, head_dim = half.spatial.attention.shape(half.width)
    hidden = half.spatial.feedforward.inner(half.width)
    public = {
        "dim": half.width,
        "codebook_size": table.codes,
        "image_size": list(config.image),
        "patch_size": list(half.patch),
        "temporal_patch_size": half.frames,
        "spatial_depth": half.spatial.depth,
        "temporal_depth": half.temporal.depth,
        "dim_head": head_dim,
        "heads": heads,
        "channels": config.channels,
        "attn_dropout": half.spatial.attention.dropout,
        "ff_dropout": half.spatial.feedforward.dropout,
    }
    if fork:
        # the middle of what is rounded down to `hidden`
        public["ff_mult"] = (
            4.0 if hidden == int(8 / 3 * half.width) else 1.5 * (hidden + 0.5) / half.width
        )
        public["codebook_dim"] = table.width or half.width
    else:
        public["lookup_free_quantization"] = table.zoo_kind == "lfq"
    return checked(chosen, config, public)


# -- weights ---------------------------------------------------------------------------------------


def weight_map(config: Any, fork: bool = False) -> WeightMap:
    """Returns the table of a file."""
    width = config.encoder.width
    rows: list[Rule] = []
    for half, short in (("encoder", "enc"), ("decoder", "dec")):
        part = getattr(config, half)
        for name in ("spatial", "temporal"):
            theirs = f"{short}_{name}_transformer."
            rows += _stack_rows(theirs, f"{half}.stacks.{name}.", getattr(part, name), fork)
    for index, layer in enumerate(("0.0.", "1.0.", "2.")):
        name = "positions.0.maps"
        halves = [f"{half}.stacks.spatial.{name}.{index}." for half in ("encoder", "decoder")]
        rows.append(Tie([f"spatial_rel_pos_bias.net.{layer}"], halves))
    for ours, theirs in (("first", "_first_frame"), ("rest", "")):
        for index, name in ((1, "norm_in"), (2, "map"), (3, "norm_out")):
            rows.append(Rename(f"to_patch_emb{theirs}.{index}.", f"encoder.{ours}.{name}."))
        rows.append(Rename(f"to_pixels{theirs}.0.", f"decoder.{ours}.map."))
    rows += _quantizer_rows(config.quantizer, width, fork)
    rows.append(Drop("discr.", "vgg.", "loss_fn_lpips.", "i3d."))
    return WeightMap(rows)


def _stack_rows(theirs: str, ours: str, stack: Any, fork: bool) -> list[Rule]:
    heads, _, head_dim = stack.attention.shape(stack.width)
    inner, hidden = heads * head_dim, stack.feedforward.inner(stack.width)
    attention, feed = f"{theirs}layers.*.1.", f"{theirs}layers.*.3."
    into = f"{ours}layers.*."
    rows = [
        Rename(f"{attention}norm.gamma", f"{into}attention_norm.weight"),
        Fuse(
            [f"{attention}to_q.weight", f"{attention}to_kv.weight"],
            f"{into}attention.qkv.weight",
            sizes=(inner, 2 * inner),
        ),
        Rename(f"{attention}q_scale", f"{into}attention.q_norm.weight"),
        Rename(f"{attention}k_scale", f"{into}attention.k_norm.weight"),
        Rename(f"{attention}to_out.weight", f"{into}attention.out.weight"),
        Rename(f"{feed}0.", f"{into}feedforward_norm."),
        Rename(
            f"{feed}1.weight",
            f"{into}feedforward.gate_up.weight",
            Reorder((hidden, hidden), (1, 0)),
        ),
        Rename(f"{feed}4.weight", f"{into}feedforward.down.weight"),
        Rename(f"{theirs}norm_out.gamma", f"{ours}final_norm.weight"),
        _filled(f"{theirs}norm_out.beta", 0.0, stack.width),
    ]
    if stack.convolution is not None:
        shape = (stack.width, *[3] * 3)
        rows += [
            Rename(
                f"{theirs}layers.*.0.dsconv.weight",
                f"{into}convolution.depthwise.weight",
                Reshape((stack.width, 1, *shape[1:]), shape),
            ),
            Rename(f"{theirs}layers.*.0.dsconv.bias", f"{into}convolution.depthwise.bias"),
        ]
    for index in range(stack.depth):  # what theirs makes and has no use for
        layer = f"{theirs}layers.{index}.1."
        rows += [
            _filled(f"{layer}norm.beta", 0.0, stack.width),
            _filled(f"{layer}context_norm.gamma", 1.0, stack.width),
            _filled(f"{layer}context_norm.beta", 0.0, stack.width),
        ]
        if not fork:
            rows.append(_filled(f"{layer}null_kv", 0.0, heads, 0, head_dim))
    return rows


def _quantizer_rows(table: Any, width: int, fork: bool) -> list[Rule]:
    inner = table.bits if table.zoo_kind == "lfq" else table.width or width
    rows: list[Rule] = []
    if inner != width:
        rows += [
            Rename("vq.project_in.", "quantizer.project_in."),
            Rename("vq.project_out.", "quantizer.project_out."),
        ]
    if table.zoo_kind == "lfq":
        return [*rows, Compute("vq.mask", partial(_places, table.bits))]
    first = Squeeze(0)
    return [
        *rows,
        Rename("vq._codebook.embed", "quantizer.table", first),
        Rename("vq._codebook.cluster_size", "quantizer.counts", first),
        Rename("vq._codebook.embed_avg", "quantizer.sums", first),
        _filled("vq._codebook.initted", 1.0, *((1,) if fork else ())),
    ]


def _filled(name: str, value: float, *shape: int) -> Rule:
    """Returns the row of a tensor of one number throughout, which nothing here needs."""
    return Compute(name, partial(_full, value, shape))


def _full(value: float, shape: tuple[int, ...]) -> Any:
    import torch

    return torch.full(shape, value)


def _places(bits: int) -> Any:
    import torch

    return 2.0 ** torch.arange(bits - 1, -1, -1)


FORMATS = tuple(
    Format(
        name=name,
        kind="visual-codes",
        read_config=partial(read_config, fork=fork),
        write_config=partial(write_config, fork=fork),
        weight_map=partial(weight_map, fork=fork),
        marker=marker,
    )
    for name, fork, marker in (
        (PACKAGE, False, "lookup_free_quantization"),
        (FORK, True, "codebook_dim"),
    )
)
