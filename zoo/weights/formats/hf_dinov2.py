"""transformers' DINOv2, with registers and without (`dinov2`, `dinov2_with_registers`)."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from zoo.weights.formats import Format
from zoo.weights.formats._encoder import (
    IMAGENET,
    attention_rows,
    has,
    layer_rows,
    read_encoder,
    read_pictures,
    write_encoder,
)
from zoo.weights.formats._preprocessor import PREPROCESSOR, write_preprocessor
from zoo.weights.formats._vit import checked
from zoo.weights.formats.hf_vit import embedding_rows
from zoo.weights.formats.keys import Keys
from zoo.weights.map import Rename, Squeeze, WeightMap

__all__ = ["FORMATS"]

USUAL = {"resample": 3, "do_center_crop": True, **IMAGENET}


def hidden(width: int, ratio: float, gated: bool) -> int:
    """Returns the inner width that a ratio means: SwiGLU keeps two thirds, in multiples of 8."""
    inner = int(width * ratio)
    return (int(inner * 2 / 3) + 7) // 8 * 8 if gated else inner


def read(
    content: dict[str, Any], names: Collection[str] = (), registers: bool = False
) -> dict[str, Any]:
    """Returns our node of a config.json."""
    family = "Dinov2WithRegisters" if registers else "Dinov2"
    keys = Keys(content)
    known = [family + part for part in ("ForImageClassification", "Model", "Backbone")]
    written = keys.architecture(*known)
    head = written == known[0] or (not written and has(names, "classifier.weight"))
    backbone = read_encoder(keys, eps=1e-6)
    backbone["attention"] |= {
        "qkv_bias": keys.take("qkv_bias", True),
        "dropout": keys.take("attention_probs_dropout_prob", 0.0),
    }
    gated = keys.take("use_swiglu_ffn", False)
    ratio, activation = keys.take("mlp_ratio", 4.0), keys.activation("hidden_act", "gelu")
    backbone["feedforward"] = {
        "name": "gated" if gated else "mlp",
        "hidden": hidden(backbone["width"], ratio, gated),
        "activation": "silu" if gated else activation,
    }
    backbone["layer_scale"] = keys.take("layerscale_value", 1.0)
    backbone["dropout"] = keys.take("hidden_dropout_prob", 0.0)
    backbone["position"] |= {"prefix": 1, "antialias": registers}
    keys.only("drop_path_rate", 0, None)  # the same in every layer there, growing with depth here
    keys.ignore(
        "out_features", "out_indices", "stage_names", "apply_layernorm", "reshape_hidden_states",
        "_out_features", "_out_indices", "tie_word_embeddings",
    )  # fmt: skip
    node = {
        "tokenizer": read_pictures(keys, 16 if registers else 14, USUAL),
        "backbone": backbone,
        "registers": keys.take("num_register_tokens", 4) if registers else 0,
        "mask_token": registers or keys.take("use_mask_token", True),
        "pool": "class-mean" if head else "class",
    }
    node["classes"], node["labels"] = keys.labels() if head else (0, [])
    keys.ignore_generic()
    keys.finish("transformers-dinov2" + "-registers" * registers)
    return node


def write(config: Any, registers: bool = False) -> dict[str, Any]:
    """Returns a config.json. Raises: ConfigError naming what DINOv2 of transformers cannot say."""
    backbone, family = config.backbone, "Dinov2WithRegisters" if registers else "Dinov2"
    wanted = backbone.feedforward.inner(backbone.width)
    gated = backbone.feedforward.zoo_kind == "gated"
    ratio = min(range(1, 65), key=lambda r: abs(hidden(backbone.width, r, gated) - wanted))
    architecture = family + ("ForImageClassification" if config.classes else "Model")
    public = write_encoder(
        config, architecture, "dinov2_with_registers" if registers else "dinov2"
    ) | {
        "mlp_ratio": ratio,
        "use_swiglu_ffn": gated,
        "layerscale_value": backbone.layer_scale,
        "hidden_dropout_prob": backbone.dropout,
        "attention_probs_dropout_prob": getattr(backbone.attention, "dropout", 0.0),
        "qkv_bias": getattr(backbone.attention, "qkv_bias", True),
        PREPROCESSOR: write_preprocessor(config.tokenizer, "BitImageProcessor"),
    }
    if registers:
        public["num_register_tokens"] = config.registers
    else:
        public["use_mask_token"] = config.mask_token
    return checked(FORMATS[registers], config, public)


def weight_map(config: Any, registers: bool = False) -> WeightMap:
    """Returns the table of a file."""
    name = "dinov2_with_registers." if registers else "dinov2."
    prefix = name if config.classes else ""
    layer, ours = prefix + "encoder.layer.*.", "backbone.layers.*."
    gated = config.backbone.feedforward.zoo_kind == "gated"
    rows = [
        *embedding_rows(prefix),
        *attention_rows(
            layer + "attention.",
            ours + "attention.",
            ("attention.query", "attention.key", "attention.value", "output.dense"),
        ),
        Rename(layer + "layer_scale1.lambda1", ours + "attention_scale.weight"),
        Rename(layer + "layer_scale2.lambda1", ours + "feedforward_scale.weight"),
        Rename(prefix + "layernorm.", "backbone.final_norm."),
    ]
    if gated:
        rows += [
            Rename(layer + "norm1.", ours + "attention_norm."),
            Rename(layer + "norm2.", ours + "feedforward_norm."),
            Rename(layer + "mlp.weights_in.", ours + "feedforward.gate_up."),
            Rename(layer + "mlp.weights_out.", ours + "feedforward.down."),
        ]
    else:
        rows += layer_rows(layer, ("norm1", "norm2"), ("mlp.fc1", "mlp.fc2"))
    if config.mask_token:
        rows.append(Rename(prefix + "embeddings.mask_token", "prefix.mask_token"))
    if registers:
        tokens = prefix + "embeddings.register_tokens"
        rows.append(Rename(tokens, "prefix.registers", Squeeze(0)))
    if config.classes:
        rows.append(Rename("classifier.", "head."))
    return WeightMap(rows, prefixes=[name])


FORMATS = tuple(
    Format(
        name="transformers-dinov2" + "-registers" * registers,
        kind="vit",
        read_config=partial(read, registers=registers),
        write_config=partial(write, registers=registers),
        weight_map=partial(weight_map, registers=registers),
        model_types=("dinov2_with_registers" if registers else "dinov2",),
        companions=(PREPROCESSOR,),
    )
    for registers in (False, True)
)
