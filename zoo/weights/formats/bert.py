"""BERT and RoBERTa as transformers stores them, with each of their heads, and the sentence
embedders that sentence-transformers makes of them.

| head     | class for the head        | what else the file may hold            |
|----------|---------------------------|----------------------------------------|
| fill     | ForMaskedLM               | pooler, next sentence (ForPreTraining) |
| classify | ForSequenceClassification | pooler (BERT reads it)                 |
| tag      | ForTokenClassification    | pooler                                 |
| span     | ForQuestionAnswering      | pooler                                 |
| embed    | Model                     | pooler, heads that are left out        |

Hub files of 2018 spell norms `gamma` and `beta`, files of other years lack `bert.` or carry
`position_ids`. RoBERTa's positions start behind the padding index, so 514 rows serve 512 tokens.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._text import (
    checked,
    dropouts,
    embedding_dropout,
    holds,
    read_special,
    text_keys,
    write_special,
)
from zoo.weights.formats.keys import Keys, public_activation, public_labels, show
from zoo.weights.map import Drop, Fuse, Rename, Rule, Tie, WeightMap

# task -> end of the class in `architectures`
CLASSES = {
    "fill": "ForMaskedLM",
    "classify": "ForSequenceClassification",
    "tag": "ForTokenClassification",
    "span": "ForQuestionAnswering",
    "embed": "Model",
}
MODULES, POOLING = "modules.json", "1_Pooling/config.json"
# Of Google's first release and of tokenizers; nothing reads them.
UNREAD = ("directionality", "layer_norm_epsilon", "model_max_length", "classifier_dropout")


def _task(keys: Keys, prefix: str) -> str:
    written = keys.take("architectures", [], list)
    name = str(written[0]) if written else "Model"
    if name.endswith("ForPreTraining"):
        return "fill"
    for task, suffix in CLASSES.items():
        if name.endswith(suffix):
            return task
    known = ", ".join(prefix + suffix for suffix in CLASSES.values())
    raise ConfigError(
        f"{keys.where}: architecture {show(name)} is not implemented here, only {known}."
    )


def _read(content: dict[str, Any], names: Collection[str], roberta: bool) -> dict[str, Any]:
    keys = text_keys(content)
    keys.ignore(*UNREAD, *(key for key in content if key.startswith("pooler_")))
    keys.only("position_embedding_type", "absolute", None)
    task = _task(keys, "Roberta" if roberta else "Bert")
    special = read_special(keys)
    offset = special.setdefault("pad", 1) + 1 if roberta else 0
    width = keys.take("hidden_size", 768)
    length = keys.take("max_position_embeddings", 512)
    activation = keys.activation("hidden_act", "gelu")
    pooler = any(name.endswith("pooler.dense.weight") for name in names)
    pooler |= task == "classify" and not roberta
    follows = any(name.endswith("cls.seq_relationship.weight") for name in names)
    count, labels = keys.labels() if task in ("classify", "tag") else (2, [])
    node = {
        "vocabulary": keys.take("vocab_size", 50265 if roberta else 30522),
        "token_types": keys.take("type_vocab_size", 2),
        "task": task,
        "pooler": pooler,
        "next_sentence": pooler and task == "fill" and follows,
        # RoBERTa's head has the exact GELU whatever its stack has
        "transform": "gelu" if roberta or task != "fill" else activation,
        "tied": keys.take("tie_word_embeddings", True),
        "head_bias": True,
        "classes": count,
        "labels": labels,
        "classify_from": "dense" if roberta else "pooler",
        "special": special,
        "backbone": {
            "kind": "transformer",
            "depth": keys.take("num_hidden_layers", 12),
            "width": width,
            "length": length - offset,
            "attention": {
                "heads": keys.take("num_attention_heads", 12),
                "dropout": keys.take("attention_probs_dropout_prob", 0.1),
            },
            "feedforward": {
                "hidden": keys.take("intermediate_size", 3072),
                "activation": activation,
            },
            "norm": {"kind": "layer", "eps": keys.take("layer_norm_eps", 1e-12)},
            "position": {"name": "learned", "offset": offset},
            "placement": "post",
            "final_norm": False,
            "embedding_norm": True,
            **dropouts(*[keys.take("hidden_dropout_prob", 0.1)] * 2),
            "init_std": keys.take("initializer_range", 0.02),
        },
        **_read_pooling(keys, task),
    }
    keys.finish(_name(roberta))
    return node


def _read_pooling(keys: Keys, task: str) -> dict[str, Any]:
    """Returns how one vector is made of a text, as the folders of sentence-transformers say it."""
    modules = keys.take(MODULES, [], list)
    pooling = Keys(keys.take(POOLING, {}, dict), POOLING)
    if not modules and not pooling.content:
        return {}
    if task != "embed":
        raise ConfigError(f"{MODULES}: sentence vectors come from a model without a head.")
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if modules and kinds not in (
        ["Transformer", "Pooling"],
        ["Transformer", "Pooling", "Normalize"],
    ):
        raise ConfigError(
            f"{MODULES}: modules {', '.join(kinds)} are not implemented here, only Transformer, "
            "Pooling and Normalize."
        )
    if modules and modules[1].get("path") != "1_Pooling":
        raise ConfigError(f"{MODULES}: the pooling must lie in '1_Pooling'.")
    pooling.ignore("word_embedding_dimension", "embedding_dimension", "include_prompt")
    flags = {
        key: value for key, value in pooling.content.items() if key.startswith("pooling_mode_")
    }
    pooling.ignore(*flags)
    chosen = [key.removeprefix("pooling_mode_") for key, value in flags.items() if value]
    chosen = [{"mean_tokens": "mean", "cls_token": "cls"}.get(mode, mode) for mode in chosen]
    mode = pooling.take("pooling_mode", "+".join(chosen) or "mean")
    pooling.finish("sentence-transformers")
    if mode not in ("mean", "cls"):
        raise ConfigError(
            f"{POOLING}: pooling {mode!r} is not implemented here, only mean and cls."
        )
    return {
        "embed_from": "mean" if mode == "mean" else "first",
        "embed_unit": "Normalize" in kinds,
    }


def _write(config: Any, roberta: bool) -> dict[str, Any]:
    name = _name(roberta)
    holds(name, config, norm="layer", feedforward="mlp", position="learned")
    backbone, prefix = config.backbone, "Roberta" if roberta else "Bert"
    offset = backbone.position[0].offset
    suffix = "ForPreTraining" if config.next_sentence else CLASSES[config.task]
    public = {
        "model_type": prefix.lower(),
        "architectures": [prefix + suffix],
        "vocab_size": config.vocabulary,
        "hidden_size": backbone.width,
        "num_hidden_layers": backbone.depth,
        "num_attention_heads": backbone.attention.shape(backbone.width)[0],
        "intermediate_size": backbone.feedforward.inner(backbone.width),
        "position_embedding_type": "absolute",  # the default; CTranslate2's converter asks
        "hidden_act": public_activation(backbone.feedforward.activation),
        "hidden_dropout_prob": embedding_dropout(backbone),
        "attention_probs_dropout_prob": backbone.attention.dropout,
        "max_position_embeddings": (backbone.position[0].length or backbone.length) + offset,
        "type_vocab_size": config.token_types,
        "initializer_range": backbone.init_std,
        "layer_norm_eps": backbone.norm.eps,
        "tie_word_embeddings": config.tied,
        **write_special(config.special),
    }
    if public["pad_token_id"] is None:
        public["pad_token_id"] = offset - 1 if roberta else 0
    if config.task in ("classify", "tag"):
        public |= public_labels(config.classes, config.labels)
    if config.task == "embed":
        public |= _write_pooling(config)
    names = {"pooler.dense.weight"} if config.pooler else set()
    names |= {"cls.seq_relationship.weight"} if config.next_sentence else set()
    return checked(_FORMATS[name], config, public, names)


def _write_pooling(config: Any) -> dict[str, Any]:
    if config.embed_from == "pooler":
        return {}  # which sentence-transformers has no word for
    made = "sentence_transformers.models."
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    return {
        MODULES: [
            {"idx": i, "name": str(i), "path": path, "type": made + kind}
            for i, (path, kind) in enumerate(modules[: 3 if config.embed_unit else 2])
        ],
        POOLING: {
            "word_embedding_dimension": config.backbone.width,
            "pooling_mode_cls_token": config.embed_from == "first",
            "pooling_mode_mean_tokens": config.embed_from == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    }


# -- tensors ---------------------------------------------------------------------------------------


def _map(config: Any, roberta: bool) -> WeightMap:
    name = "roberta." if roberta else "bert."
    base = "" if config.task == "embed" else name
    layer, ours = f"{base}encoder.layer.*.", "backbone.layers.*."
    attention = f"{layer}attention.self."
    rules: list[Rule] = [
        *_embedding(config, f"{base}embeddings.", roberta),
        Fuse(
            [f"{attention}query.", f"{attention}key.", f"{attention}value."],
            f"{ours}attention.qkv.",
        ),
        Rename(f"{layer}attention.output.dense.", f"{ours}attention.out."),
        Rename(f"{layer}attention.output.LayerNorm.", f"{ours}attention_norm."),
        Rename(f"{layer}intermediate.dense.", f"{ours}feedforward.up."),
        Rename(f"{layer}output.dense.", f"{ours}feedforward.down."),
        Rename(f"{layer}output.LayerNorm.", f"{ours}feedforward_norm."),
        *([Rename(f"{base}pooler.dense.", "pooler.")] if config.pooler else []),
        *(_roberta_head(config) if roberta else _bert_head(config)),
    ]
    prefixes = [name]
    return WeightMap(rules, prefixes=prefixes, spellings={".gamma": ".weight", ".beta": ".bias"})


def _embedding(config: Any, base: str, roberta: bool) -> list[Rule]:
    table, ours = f"{base}word_embeddings.weight", "embedding.table.weight"
    decoder = "lm_head.decoder.weight" if roberta else "cls.predictions.decoder.weight"
    if config.task == "fill" and config.tied:
        rules = [Tie([table, decoder], [ours])]
    else:
        rules = [Rename(table, ours)]
    if config.task == "fill" and not config.tied:
        rules.append(Rename(decoder, "head.weight"))
    if config.token_types:
        rules.append(Rename(f"{base}token_type_embeddings.", "token_types."))
    return [
        *rules,
        Rename(f"{base}position_embeddings.weight", "backbone.positions.0.weight"),
        Rename(f"{base}LayerNorm.", "backbone.embedding_norm."),
        Drop(f"{base}position_ids", f"{base}token_type_ids"),  # counted here
    ]


def _bert_head(config: Any) -> list[Rule]:
    head = "cls.predictions."
    if config.task != "fill":
        # a file of all of BERT serves as an encoder or as the start of fine-tuning
        named = {"classify": "classifier.", "tag": "classifier.", "span": "qa_outputs."}
        return [Rename(named[config.task], "head.")] if config.task in named else [Drop("cls.")]
    return [
        Rename(f"{head}transform.dense.", "head.dense."),
        Rename(f"{head}transform.LayerNorm.", "head.norm."),
        *_bias(config, head),
        *([Rename("cls.seq_relationship.", "next_sentence.")] if config.next_sentence else []),
    ]


def _roberta_head(config: Any) -> list[Rule]:
    if config.task == "fill":
        return [
            Rename("lm_head.dense.", "head.dense."),
            Rename("lm_head.layer_norm.", "head.norm."),
            *_bias(config, "lm_head."),
        ]
    if config.task == "classify":
        return [Rename("classifier.dense.", "dense."), Rename("classifier.out_proj.", "head.")]
    if config.task == "embed":
        return [Drop("lm_head.")]
    return [Rename("classifier." if config.task == "tag" else "qa_outputs.", "head.")]


def _bias(config: Any, head: str) -> list[Rule]:
    """The bias has two names; in untied files they are two vectors, of which the second is
    added."""
    if config.tied:
        return [Tie([f"{head}bias", f"{head}decoder.bias"], ["head.bias"])]
    return [Rename(f"{head}decoder.bias", "head.bias"), Drop(f"{head}bias")]


def _name(roberta: bool) -> str:
    return "transformers-roberta" if roberta else "transformers-bert"


def _format(roberta: bool) -> Format:
    return Format(
        _name(roberta),
        "masked-lm",
        read_config=lambda content, names: _read(content, names, roberta),
        write_config=lambda config: _write(config, roberta),
        weight_map=lambda config: _map(config, roberta),
        model_types=("roberta", "xlm-roberta", "camembert") if roberta else ("bert",),
        companions=(MODULES, POOLING),
    )


_FORMATS = {_name(roberta): _format(roberta) for roberta in (False, True)}
FORMATS = tuple(_FORMATS.values())
