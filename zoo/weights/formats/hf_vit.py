"""transformers' ViT and DeiT (`vit`, `deit`), with and without a classifier."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from zoo.weights.formats import Format
from zoo.weights.formats._encoder import (
    HALF,
    attention_rows,
    has,
    layer_rows,
    read_encoder,
    read_pictures,
    write_encoder,
)
from zoo.weights.formats._preprocessor import PREPROCESSOR, write_preprocessor
from zoo.weights.formats._vit import checked
from zoo.weights.formats.keys import Keys, public_activation
from zoo.weights.map import Drop, Optional, Rename, Rule, Squeeze, WeightMap

__all__ = ["FORMATS"]

# The modules of transformers 5, for files that hold a `state_dict()` instead of a saved model.
SPELLINGS = {
    "layers.": "encoder.layer.",
    "vit.layers.": "vit.encoder.layer.",
    "deit.layers.": "deit.encoder.layer.",
    ".attention.q_proj.": ".attention.attention.query.",
    ".attention.k_proj.": ".attention.attention.key.",
    ".attention.v_proj.": ".attention.attention.value.",
    ".attention.o_proj.": ".attention.output.dense.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}


# -- configs ---------------------------------------------------------------------------------------


def _read(keys: Keys, names: Collection[str], patch: int, interpolation: int) -> dict[str, Any]:
    """Returns what both have: encoder, tokenizer, and the pooler that no config mentions."""
    backbone = read_encoder(keys, eps=1e-12)
    backbone["attention"] |= {
        "qkv_bias": keys.take("qkv_bias", True),
        "dropout": keys.take("attention_probs_dropout_prob", 0.0),
    }
    backbone["feedforward"] = {
        "hidden": keys.take("intermediate_size", 3072),
        "activation": keys.activation("hidden_act", "gelu"),
    }
    backbone["dropout"] = keys.take("hidden_dropout_prob", 0.0)
    pooler = {
        "projection": keys.take("pooler_output_size", backbone["width"], int),
        "projection_bias": True,
        "projection_activation": keys.activation("pooler_act", "tanh"),
    }
    keys.ignore("encoder_stride", "tie_word_embeddings")
    return {
        "tokenizer": read_pictures(keys, patch, {"resample": interpolation, **HALF}),
        "backbone": backbone,
        "mask_token": has(names, "embeddings.mask_token"),
        **(pooler if has(names, "pooler.dense.weight") else {}),
    }


def read_vit(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of a `vit` config.json."""
    keys = Keys(content)
    written = keys.architecture("ViTForImageClassification", "ViTModel")
    node = _read(keys, names, 16, interpolation=2)
    head = written == "ViTForImageClassification" or (
        not written and has(names, "classifier.weight")
    )
    node["classes"], node["labels"] = keys.labels() if head else (0, [])
    if head:
        node["projection"] = None  # a pooler in such a file is of no use to its classifier
    keys.ignore_generic()
    keys.finish("transformers-vit")
    return node


def read_deit(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of a `deit` config.json.

    The distillation token of a classifier with one head is a register: nothing reads it.
    """
    keys = Keys(content)
    teacher, single = "DeiTForImageClassificationWithTeacher", "DeiTForImageClassification"
    written = keys.architecture(teacher, single, "DeiTModel")
    if not written and has(names, "classifier.weight"):
        written = teacher if has(names, "distillation_classifier.weight") else single
    node = _read(keys, names, 16, interpolation=3)
    head = written in (teacher, single)
    node["classes"], node["labels"] = keys.labels() if head else (0, [])
    node["distillation_token"], node["registers"] = written != single, int(written == single)
    if head:
        node["projection"] = None
    keys.ignore_generic()
    keys.finish("transformers-deit")
    return node


def _write(config: Any, architecture: str, model_type: str, processor: str) -> dict[str, Any]:
    backbone = config.backbone
    public = write_encoder(config, architecture, model_type) | {
        "intermediate_size": backbone.feedforward.inner(backbone.width),
        "hidden_dropout_prob": backbone.dropout,
        "attention_probs_dropout_prob": getattr(backbone.attention, "dropout", 0.0),
        "qkv_bias": getattr(backbone.attention, "qkv_bias", True),
        PREPROCESSOR: write_preprocessor(config.tokenizer, processor),
    }
    if config.projection:
        public["pooler_output_size"] = config.projection
        public["pooler_act"] = public_activation(config.projection_activation)
    return public


def write_vit(config: Any) -> dict[str, Any]:
    """Returns a `vit` config.json; raises ConfigError naming what it cannot say."""
    name = "ViTForImageClassification" if config.classes else "ViTModel"
    public = _write(config, name, "vit", "ViTImageProcessor")
    return checked(FORMATS[0], config, public)


def write_deit(config: Any) -> dict[str, Any]:
    """Returns a `deit` config.json; raises ConfigError naming what it cannot say."""
    head = "DeiTForImageClassificationWithTeacher"
    name = head if config.distillation_token else head.removesuffix("WithTeacher")
    public = _write(config, name if config.classes else "DeiTModel", "deit", "DeiTImageProcessor")
    return checked(FORMATS[1], config, public)


# -- weights ---------------------------------------------------------------------------------------


def embedding_rows(prefix: str) -> list[Rule]:
    """Returns the rows of tokens, positions and the patch projection."""
    theirs = prefix + "embeddings."
    return [
        Rename(theirs + "cls_token", "prefix.class_token", Squeeze(0)),
        Rename(theirs + "position_embeddings", "backbone.positions.0.weight", Squeeze(0)),
        Rename(theirs + "patch_embeddings.projection.", "tokenizer."),
    ]


def _rows(config: Any, prefix: str) -> list[Rule]:
    layer = prefix + "encoder.layer.*."
    projected = Rename(prefix + "pooler.dense.", "pool.projection.")
    return [
        *embedding_rows(prefix),
        Optional(Rename(prefix + "embeddings.mask_token", "prefix.mask_token", Squeeze(0))),
        *attention_rows(
            layer + "attention.",
            "backbone.layers.*.attention.",
            ("attention.query", "attention.key", "attention.value", "output.dense"),
        ),
        *layer_rows(
            layer, ("layernorm_before", "layernorm_after"), ("intermediate.dense", "output.dense")
        ),
        Rename(prefix + "layernorm.", "backbone.final_norm."),
        projected if config.projection else Drop(prefix + "pooler."),
    ]


def map_vit(config: Any) -> WeightMap:
    """Returns the table of a `vit` file."""
    rows = _rows(config, "vit." if config.classes else "")
    if config.classes:
        rows.append(Rename("classifier.", "head."))
    return WeightMap(rows, prefixes=["vit."], spellings=SPELLINGS)


def map_deit(config: Any) -> WeightMap:
    """Returns the table of a `deit` file."""
    prefix = "deit." if config.classes else ""
    token = "distillation_token" if config.distillation_token else "registers"
    second = Rename(prefix + "embeddings.distillation_token", f"prefix.{token}", Squeeze(0))
    heads = []
    if config.classes and config.distillation_token:
        heads = [
            Rename("cls_classifier.", "head."),
            Rename("distillation_classifier.", "distillation_head."),
        ]
    elif config.classes:
        heads = [Rename("classifier.", "head.")]
    return WeightMap(
        [*_rows(config, prefix), second, *heads], prefixes=["deit."], spellings=SPELLINGS
    )


_format = partial(Format, kind="vit", companions=(PREPROCESSOR,))
FORMATS = (
    _format(
        name="transformers-vit",
        read_config=read_vit,
        write_config=write_vit,
        weight_map=map_vit,
        model_types=("vit",),
    ),
    _format(
        name="transformers-deit",
        read_config=read_deit,
        write_config=write_deit,
        weight_map=map_deit,
        model_types=("deit",),
    ),
)
