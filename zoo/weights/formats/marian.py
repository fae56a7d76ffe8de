"""Marian, the translators of OPUS (opus-mt-*) as transformers stores them: the 2017 Transformer.

Sines start at 0 with the paper's frequencies; scores of the target's tokens have a bias
(`final_logits_bias`). Files may carry the tables of sines and the further names of the embedding.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._pair import (
    pair_keys,
    read_pair_special,
    read_stacks,
    stack_rows,
    write_pair_special,
    write_stacks,
)
from zoo.weights.formats._text import checked
from zoo.weights.map import Drop, Rename, Rule, Squeeze, Tie, WeightMap

NAME = "transformers-marian"
DEFAULTS = {"d_model": 1024, "activation_function": "gelu"}
# Options of BART's code that no Marian model has used, with what they were.
NEVER = {
    "add_bias_logits": False,
    "add_final_layer_norm": False,
    "force_bos_token_to_be_generated": False,
    "normalize_before": False,
    "normalize_embedding": False,
    "static_position_embeddings": True,
}


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of a Marian config.json."""
    keys = pair_keys(content)
    keys.architecture("MarianMTModel")
    for key, value in NEVER.items():
        keys.only(key, value, None)
    keys.ignore("classif_dropout", "classifier_dropout", "extra_pos_embeddings")
    source = keys.take("vocab_size", 58101)
    target = keys.take("decoder_vocab_size", source)
    shared = keys.take("share_encoder_decoder_embeddings", True)
    tied = keys.take("tie_word_embeddings", True)
    if shared and not tied:
        raise ConfigError(
            f"{keys.where}: 'tie_word_embeddings' = False is not supported with embeddings that "
            "encoder and decoder share."
        )
    node = {
        "vocabulary": source,
        "target_vocabulary": None if shared or target == source else target,
        "shared_embedding": shared,
        "tied": tied,
        "head_bias": True,
        "scale_embedding": keys.take("scale_embedding", False),
        "special": read_pair_special(keys, 58100),
        **read_stacks(keys, DEFAULTS, {"kind": "sinusoidal"}),
    }
    keys.finish(NAME)
    return node


def write_config(config: Any) -> dict[str, Any]:
    """Returns a Marian config.json; raises ConfigError for what it cannot say."""
    public = {
        "model_type": "marian",
        "architectures": ["MarianMTModel"],
        "vocab_size": config.vocabulary,
        "decoder_vocab_size": config.target_vocabulary or config.vocabulary,
        "share_encoder_decoder_embeddings": config.shared_embedding,
        "tie_word_embeddings": config.tied,
        "scale_embedding": config.scale_embedding,
        **write_stacks(NAME, config),
        **write_pair_special(config),
    }
    return checked(FORMAT, config, public)


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    tables = [f"model.{stack}.embed_tokens.weight" for stack in ("encoder", "decoder")]
    head, ours = "lm_head.weight", "embedding.table.weight"
    rows: list[Rule]
    if config.shared_embedding:
        rows = [Tie(["model.shared.weight", *tables, head], [ours])]
    elif config.tied:
        rows = [Rename(tables[0], ours), Tie([tables[1], head], [f"target_{ours}"])]
    else:
        rows = [
            Rename(tables[0], ours),
            Rename(tables[1], f"target_{ours}"),
            Rename(head, "head.weight"),
        ]
    return WeightMap(
        [
            *rows,
            Rename("final_logits_bias", "head.bias", Squeeze(0)),
            *stack_rows("encoder"),
            *stack_rows("decoder"),
            Drop("model.encoder.embed_positions.", "model.decoder.embed_positions."),
        ]
    )


FORMAT = Format(NAME, "seq2seq", read_config, write_config, weight_map, model_types=("marian",))
