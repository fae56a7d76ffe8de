"""FSMT, fairseq's translators as transformers stores them (wmt19-*): the 2017 Transformer.

The vocabularies of source and target are two; sines start behind the padding index, with
tensor2tensor's frequencies. Files carry the tables of sines, which are computed here.

| `tie_word_embeddings` | source embedding | target embedding | head                             |
|-----------------------|------------------|------------------|----------------------------------|
| true                  | one for all      | one for all      | one for all                      |
| false                 | its own          | its own          | the file's, or else the target's |
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
from zoo.weights.map import Drop, Rename, Rule, Tie, WeightMap

NAME = "transformers-fsmt"
HEAD = "model.decoder.output_projection.weight"
DEFAULTS = {"d_model": 1024, "activation_function": "relu"}


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of an FSMT config.json."""
    keys = pair_keys(content)
    keys.architecture("FSMTForConditionalGeneration")
    keys.ignore("langs", "decoder", "add_bias_logits", "vocab_size")
    for extra in ("normalize_before", "normalize_embedding", "add_final_layer_norm"):
        keys.only(extra, False, None)  # options of BART that FSMT never had
    keys.only("static_position_embeddings", True, None)
    keys.only("extra_pos_embeddings", 2, None)
    special = read_pair_special(keys, 2)
    source, target = keys.take("src_vocab_size", 42024), keys.take("tgt_vocab_size", 42024)
    shared = keys.take("tie_word_embeddings", False)
    if shared and source != target:
        raise ConfigError(
            f"{keys.where}: 'tie_word_embeddings' needs vocabularies of one size, got {source} and "
            f"{target}."
        )
    offset = special.setdefault("pad", 1) + 1
    sines = {"kind": "sinusoidal", "spacing": "tensor2tensor", "offset": offset}
    node = {
        "vocabulary": source,
        "target_vocabulary": None if target == source else target,
        "shared_embedding": shared,
        "tied": shared or (bool(names) and not any(n.endswith(HEAD) for n in names)),
        "scale_embedding": keys.take("scale_embedding", True),
        "special": special,
        **read_stacks(keys, DEFAULTS, sines),
    }
    keys.finish(NAME)
    return node


def write_config(config: Any) -> dict[str, Any]:
    """Returns an FSMT config.json; raises ConfigError for what it cannot say."""
    public = {
        "model_type": "fsmt",
        "architectures": ["FSMTForConditionalGeneration"],
        "langs": ["", ""],
        "src_vocab_size": config.vocabulary,
        "tgt_vocab_size": config.target_vocabulary or config.vocabulary,
        "tie_word_embeddings": config.shared_embedding,
        "scale_embedding": config.scale_embedding,
        **write_stacks(NAME, config),
        **write_pair_special(config),
    }
    return checked(FORMAT, config, public, {HEAD})  # a file is written with all that it needs


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    table = "model.{}.embed_tokens.weight".format
    rows: list[Rule]
    if config.shared_embedding:
        names = [table("decoder"), table("encoder"), HEAD]
        rows = [Tie(names, ["embedding.table.weight"])]
    else:
        rows = [Rename(table("encoder"), "embedding.table.weight")]
        target = "target_embedding.table.weight"
        if config.tied:
            rows.append(Tie([table("decoder"), HEAD], [target]))
        else:
            rows += [Rename(table("decoder"), target), Rename(HEAD, "head.weight")]
    return WeightMap(
        [
            *rows,
            *stack_rows("encoder"),
            *stack_rows("decoder"),
            Drop("model.encoder.embed_positions.", "model.decoder.embed_positions."),
        ],
        prefixes=["model."],
    )


FORMAT = Format(NAME, "seq2seq", read_config, write_config, weight_map, model_types=("fsmt",))
