"""transformers' SigLIP: the vision tower, alone or in a file with the text tower (`siglip`).

SigLIP 2 at fixed sizes is stored as the same family.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.weights.formats import Format
from zoo.weights.formats._encoder import (
    HALF,
    attention_rows,
    layer_rows,
    read_encoder,
    read_pictures,
    write_encoder,
)
from zoo.weights.formats._preprocessor import PREPROCESSOR, write_preprocessor
from zoo.weights.formats._vit import checked
from zoo.weights.formats.keys import Keys
from zoo.weights.map import Drop, Rename, Split, Squeeze, WeightMap

__all__ = ["FORMAT"]

CLASSIFIER = "SiglipForImageClassification"
TOWER = "vision_model."


def read_config(content: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Returns our node of the vision tower of a config.json."""
    keys = Keys(content)
    written = keys.architecture("SiglipModel", "SiglipVisionModel", CLASSIFIER)
    tower = keys
    if content.get("model_type") == "siglip":
        tower = keys.section("vision_config")
        keys.ignore("text_config", "tie_word_embeddings")
        tower.content = {**tower.content, PREPROCESSOR: keys.take(PREPROCESSOR, {}, dict)}
    backbone = read_encoder(tower, eps=1e-6)
    backbone["attention"]["dropout"] = tower.take("attention_dropout", 0.0)
    backbone["feedforward"] = {
        "hidden": tower.take("intermediate_size", 3072),
        "activation": tower.activation("hidden_act", "gelu_pytorch_tanh"),
    }
    pools = tower.take("vision_use_head", True)
    tower.ignore("projection_size", "tie_word_embeddings")
    node = {
        "tokenizer": read_pictures(tower, 16, {"resample": 3, **HALF}),
        "backbone": backbone,
        "class_token": False,
        # the classifier reads the mean, beside a head that it has and does not ask
        "pool": "attention" if pools and written != CLASSIFIER else "mean",
    }
    node["classes"], node["labels"] = keys.labels() if written == CLASSIFIER else (0, [])
    for part in (tower, keys):
        part.ignore_generic()
        part.finish(FORMAT.name)
    return node


def write_config(config: Any) -> dict[str, Any]:
    """Returns the config.json of a vision tower, or of a classifier around one.

    Raises: ConfigError naming what SigLIP of transformers cannot say.
    """
    backbone = config.backbone
    tower = write_encoder(config, "SiglipVisionModel", "siglip_vision_model") | {
        "intermediate_size": backbone.feedforward.inner(backbone.width),
        "attention_dropout": getattr(backbone.attention, "dropout", 0.0),
        "vision_use_head": config.pool == "attention",
    }
    public = tower
    if config.classes:
        labels = {key: tower.pop(key) for key in ("id2label", "label2id")}
        tower.pop("architectures")
        public = {"architectures": [CLASSIFIER], "model_type": "siglip", **labels}
        public["vision_config"] = tower
    public[PREPROCESSOR] = write_preprocessor(config.tokenizer, "SiglipImageProcessor")
    return checked(FORMAT, config, public)


def weight_map(config: Any) -> WeightMap:
    """Returns the table of a file; the text tower is dropped."""
    prefix = TOWER if config.classes else ""
    layer, width = prefix + "encoder.layers.*.", config.backbone.width
    rows = [
        Rename(prefix + "embeddings.patch_embedding.", "tokenizer."),
        Rename(prefix + "embeddings.position_embedding.weight", "backbone.positions.0.weight"),
        *attention_rows(
            layer + "self_attn.",
            "backbone.layers.*.attention.",
            ("q_proj", "k_proj", "v_proj", "out_proj"),
        ),
        *layer_rows(layer, ("layer_norm1", "layer_norm2"), ("mlp.fc1", "mlp.fc2")),
        Rename(prefix + "post_layernorm.", "backbone.final_norm."),
        Drop(prefix + "embeddings.position_ids"),
        Drop("text_model.", "logit_scale", "logit_bias"),
    ]
    theirs, ours = prefix + "head.", "pool.latent."
    if config.pool == "attention":
        attention, sizes = theirs + "attention.", (width, 2 * width)
        rows += [
            Rename(theirs + "probe", ours + "query", Squeeze(0)),
            *(
                Split(
                    f"{attention}in_proj_{kind}",
                    [f"{ours}attention.q.{kind}", f"{ours}attention.kv.{kind}"],
                    sizes=sizes,
                )
                for kind in ("weight", "bias")
            ),
            Rename(attention + "out_proj.", ours + "attention.out."),
            Rename(theirs + "layernorm.", ours + "norm."),
            Rename(theirs + "mlp.fc1.", ours + "feedforward.up."),
            Rename(theirs + "mlp.fc2.", ours + "feedforward.down."),
        ]
    else:
        rows.append(Drop(theirs))
    if config.classes:
        rows.append(Rename("classifier.", "head."))
    return WeightMap(rows, prefixes=[TOWER])


FORMAT = Format(
    name="transformers-siglip",
    kind="vit",
    read_config=read_config,
    write_config=write_config,
    weight_map=weight_map,
    model_types=("siglip", "siglip_vision_model"),
    companions=(PREPROCESSOR,),
)
