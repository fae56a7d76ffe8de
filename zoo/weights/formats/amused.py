"""aMUSEd as diffusers stores it: its transformer alone (`UVit2DModel`), or the whole pipeline
(`AmusedPipeline`), a folder of folders.

| folder       | class                         | here      |
|--------------|-------------------------------|-----------|
| transformer  | `UVit2DModel`                 | the model |
| vqvae        | `VQModel`, pixels in [0, 1]   | `visual`  |
| text_encoder | `CLIPTextModelWithProjection` | `reader`  |
| scheduler    | `AmusedScheduler`             | `sampling`|
| tokenizer    | `CLIPTokenizer`               |           |

The two attentions of an outer block both read the prompt; their norms' epsilon is fixed. In the
middle two norms of a block are RMS norms and the third, before the feed-forward, is a layer norm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.registry import to_mapping
from zoo.weights.formats import Format, vqgan
from zoo.weights.formats import hf_clip_text as clip
from zoo.weights.formats._lossless import checked
from zoo.weights.formats._uvit import transformer_rows
from zoo.weights.formats.keys import Keys
from zoo.weights.map import WeightMap

__all__ = ["FORMATS"]

NAME, PIPELINE = "diffusers-uvit2d", "diffusers-amused"
WEIGHTS = "diffusion_pytorch_model.safetensors"
TRANSFORMER, VISUAL, READER, SCHEDULER = (
    f"{folder}config.json"
    for folder in ("transformer/", "vqvae/", "text_encoder/", "scheduler/scheduler_")
)
MEASURES = ("width", "height", "top", "left", "score")  # in the order of the pipeline
SCORE = 6  # out of ten, which the pipeline asks for
FIXED_EPS = 1e-6


# -- configs ---------------------------------------------------------------------------------------


def read_transformer(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of a `UVit2DModel`'s config.json; it has codes alone."""
    keys = Keys(content)
    bias, eps = keys.take("use_bias", False), keys.take("layer_norm_eps", 1e-6, float)
    outer, inner = keys.take("block_out_channels", 768), keys.take("hidden_size", 1024)
    waves = keys.take("micro_cond_encode_dim", 256)
    keys.only("micro_cond_embed_dim", len(MEASURES) * waves)
    halved = keys.take("downsample", False)
    keys.only("upsample", halved)
    keys.only("ln_elementwise_affine", True)
    keys.only("hidden_dropout", 0.0)
    keys.only("attention_dropout", 0.0)
    side = keys.take("sample_size", 64)
    norm = {"kind": "rms", "eps": eps}
    stem = _stem(
        width=outer,
        blocks=keys.take("num_res_blocks", 3),
        heads=keys.take("block_num_heads", 12),
        norm=norm,
        bias=bias,
    )
    heads = {"kind": "multihead", "qkv_bias": bias, "out_bias": bias}
    heads["heads"] = keys.take("num_attention_heads", 16)
    middle = {
        "kind": "transformer",
        "depth": keys.take("num_hidden_layers", 22),
        "width": inner,
        "norm": {"kind": "adaptive", "norm": norm, "bias": bias},
        "outer_norm": norm,
        "feedforward_norm": {
            "kind": "adaptive",
            "norm": {"kind": "layer", "eps": eps, "bias": bias},
            "bias": bias,
        },
        "attention": heads,
        "cross_attention": heads,
        "feedforward": {
            "kind": "gated",
            "activation": "gelu",
            "hidden": keys.take("intermediate_size", 2816),
            "bias": bias,
        },
    }
    node = {
        "codes": keys.take("codebook_size", 8192),
        "code_rows": keys.take("vocab_size", 8256),
        "grid": [side, side],
        "features": keys.take("encoder_hidden_size", 768),
        "features_norm": norm,
        "pooled": keys.take("cond_embed_dim", 768),
        "learned_nothing": False,
        "measures": dict.fromkeys(MEASURES[:2], 0.0) | {"top": 0, "left": 0, "score": SCORE},
        "measure_width": waves,
        "prompt_bias": bias,
        "head_bias": bias,
        "backbone": {
            "kind": "u-transformer",
            "width": keys.take("in_channels", 768),
            "norm": norm,
            "bias": bias,
            "factor": 2 if halved else 1,
            "down": stem,
            "middle": middle,
            "up": stem | {"final_norm": False},
        },
        "sampling": {"sampler": "amused", "guidance": 10.0},
    }
    keys.ignore("_class_name", "_diffusers_version", "_name_or_path")
    keys.finish(NAME)
    return node


def _stem(width: int, blocks: int, heads: int, norm: dict[str, Any], bias: bool) -> dict[str, Any]:
    """Returns the stack on one side of the middle: a convolution, then two readings of the prompt,
    again and again."""
    convolution = {
        "order": ["convolution"],
        "placement": "post",
        "memory_map": False,
        "norm": {"kind": "adaptive", "norm": None, "bias": bias},
    }
    reading = {"norm": {"kind": "rms", "eps": FIXED_EPS}}
    cross = {"kind": "multihead", "heads": heads, "qkv_bias": bias, "out_bias": bias}
    return {
        "kind": "transformer",
        "depth": 2 * blocks,
        "width": width,
        "norm": norm,
        "order": ["cross_attention", "cross_attention"],
        "attention": cross,
        "cross_attention": cross,
        "memory_map": False,
        "convolution": {
            "kind": "grid",
            "bias": bias,
            "norm": norm,
            "feedforward": {
                "kind": "mlp",
                "bias": bias,
                "inner_norm": {"kind": "response"},
            },
        },
        "layers": [convolution, reading],
    }


def _mapped(node: dict[str, Any]) -> dict[str, Any]:
    """Returns the node with maps of the memory where its two widths differ."""
    backbone = node["backbone"]
    for name in ("down", "up"):
        differs = backbone[name]["width"] != backbone["middle"]["width"]
        backbone[name] = backbone[name] | {"memory_map": differs}
    return node


def read_alone(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of a transformer without its tokenizer, told a square of 16 times its
    codes."""
    node = _mapped(read_transformer(content, names))
    side = float(16 * node["grid"][0])
    node["measures"] |= {"width": side, "height": side}
    return node


def read_pipeline(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of a pipeline's folders, whose configs lie in `content` by their names."""
    missing = [name for name in (TRANSFORMER, VISUAL, READER) if name not in content]
    if missing:
        raise ConfigError(f"model_index.json: the pipeline's folder lacks {missing[0]}.")
    node = _mapped(read_transformer(content[TRANSFORMER]))
    visual = vqgan.read_diffusers(content[VISUAL])
    codes, (rows, columns) = node.pop("codes"), node.pop("grid")
    if visual["quantizer"]["size"] != codes:
        raise ConfigError(
            f"{TRANSFORMER}: 'codebook_size' is {codes}, and the tokenizer has "
            f"{visual['quantizer']['size']} codes."
        )
    step = 2 ** (len(visual["encoder"]["multipliers"]) - 1)
    image = [rows * step, columns * step]
    visual |= {"kind": "visual-codes", "span": [0.0, 1.0], "image": image}
    reader = clip.read_config(content[READER])
    if not reader["projection"]:
        raise ConfigError(f"{READER}: the pipeline reads a {clip.PROJECTED}.")
    scheduler = Keys(content.get(SCHEDULER, {}), SCHEDULER)
    scheduler.only("mask_token_id", node["code_rows"] - 1)
    schedule = scheduler.take("masking_schedule", "cosine", str)
    if schedule != "cosine":
        node["sampling"]["schedule"] = schedule
    node["measures"] |= {"width": float(image[1]), "height": float(image[0])}
    return {
        **node,
        "visual": visual,
        "image": image,
        "reader": {"kind": "masked-lm", **reader},
        "reader_layer": -2,
        "features_length": reader["backbone"]["length"],
    }


def write_transformer(config: Any) -> dict[str, Any]:
    """Returns a `UVit2DModel`'s config.json; raises ConfigError for what it cannot say."""
    backbone = config.backbone
    if backbone.zoo_kind != "u-transformer" or not config.pooled or not config.features:
        raise ConfigError(f"Format {NAME!r} holds a u-transformer that reads features and pooled.")
    down, middle = backbone.down, backbone.middle
    return {
        "_class_name": "UVit2DModel",
        "hidden_size": middle.width,
        "use_bias": backbone.bias,
        "hidden_dropout": 0.0,
        "cond_embed_dim": config.pooled,
        "micro_cond_encode_dim": config.measure_width,
        "micro_cond_embed_dim": config.measure_width * len(config.measures),
        "encoder_hidden_size": config.features,
        "vocab_size": config.rows,
        "codebook_size": config.codebook,
        "in_channels": backbone.width,
        "block_out_channels": down.width,
        "num_res_blocks": down.depth // 2,
        "downsample": backbone.factor == 2,
        "upsample": backbone.factor == 2,
        "block_num_heads": down.cross_attention.shape(down.width)[0],
        "num_hidden_layers": middle.depth,
        "num_attention_heads": middle.attention.shape(middle.width)[0],
        "attention_dropout": 0.0,
        "intermediate_size": middle.feedforward.inner(middle.width),
        "layer_norm_eps": backbone.norm.eps,
        "ln_elementwise_affine": True,
        "sample_size": config.shape[0],
    }


def write_alone(config: Any) -> dict[str, Any]:
    """Returns the config.json of a model without a tokenizer of pictures."""
    if config.visual is not None or config.reader is not None:
        raise ConfigError(f"Format {NAME!r} holds the transformer alone; take {PIPELINE!r}.")
    return checked(FORMATS[0], config, write_transformer(config), _alike, ignore=UNSAID)


def write_pipeline(config: Any) -> dict[str, Any]:
    """Returns model_index.json and the configs of its folders."""
    if config.visual is None or config.reader is None:
        missing = "visual" if config.visual is None else "reader"
        raise ConfigError(f"{missing}: format {PIPELINE!r} holds a whole pipeline.")
    if tuple(config.visual.span) != (0.0, 1.0):
        raise ConfigError(f"visual.span: format {PIPELINE!r} sees pixels as they are, in [0, 1].")
    ordinary = dataclasses.replace(config.visual, span=(-1.0, 1.0))
    public = {
        "_class_name": "AmusedPipeline",
        "scheduler": ["diffusers", "AmusedScheduler"],
        "text_encoder": ["transformers", clip.PROJECTED],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "transformer": ["diffusers", "UVit2DModel"],
        "vqvae": ["diffusers", "VQModel"],
        TRANSFORMER: write_transformer(config),
        VISUAL: vqgan.write_diffusers(ordinary),
        READER: clip.write_config(config.reader),
        SCHEDULER: {
            "_class_name": "AmusedScheduler",
            "mask_token_id": config.rows - 1,
            "masking_schedule": config.sampling.get("schedule", "cosine"),
        },
    }
    return checked(FORMATS[1], config, public, _alike, ignore=UNSAID)


# What is of the person and not of the model, what the parts' own formats have checked, what is not
# of the numbers.
UNSAID = (
    "weights", "card", "labels", "tokenizer", "visual.", "reader.", "sampling", "vocabulary",
    "backbone.init_std", "bases",
)  # fmt: skip

UNSAID_OF_A_BLOCK = ("layers", "init_std", "checkpoint")


def _alike(config: Any) -> dict[str, Any]:
    """Returns the plain config without what is another way to write the same."""
    plain = to_mapping(config)
    for name in ("down", "middle", "up"):
        stack = getattr(config.backbone, name)
        blocks = [to_mapping(stack.block(index), omit=UNSAID_OF_A_BLOCK) for index in range(2)]
        for block in blocks:
            for part in ("attention", "cross_attention"):
                block[part] = block[part] and {**block[part], "kernel": None}
            if name != "middle":
                block["attention"] = block["feedforward"] = None  # it has none
        kept = to_mapping(stack, omit=("layers", "attention", "cross_attention", "feedforward"))
        plain["backbone"][name] = {**kept, "init_std": None, "checkpoint": None, "blocks": blocks}
    return plain


# -- weights ---------------------------------------------------------------------------------------


def alone_map(config: Any) -> WeightMap:
    """Returns the table of a transformer's file."""
    return WeightMap(transformer_rows(config))


def pipeline_map(config: Any) -> WeightMap:
    """Returns the table of the three files together."""
    visual = vqgan.weight_map(config.visual, vqgan.DIFFUSERS)
    reader = clip.weight_map(config.reader)
    return (
        alone_map(config).under("transformer.", "")
        + visual.under("vqvae.", "visual.")
        + reader.under("text_encoder.", "reader.")
    )


FORMATS = (
    Format(
        NAME,
        "generator",
        read_alone,
        write_alone,
        alone_map,
        class_names=("UVit2DModel",),
        file=WEIGHTS,
    ),
    Format(
        PIPELINE,
        "generator",
        read_pipeline,
        write_pipeline,
        pipeline_map,
        class_names=("AmusedPipeline",),
        companions=(TRANSFORMER, VISUAL, READER, SCHEDULER),
        config="model_index.json",
        parts={
            "transformer": f"transformer/{WEIGHTS}",
            "vqvae": f"vqvae/{WEIGHTS}",
            "text_encoder": "text_encoder/model.safetensors",
        },
        texts="tokenizer",
    ),
)
