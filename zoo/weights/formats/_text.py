"""What the formats of text models share: public keys that recur, and exports that lose nothing."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.registry import to_mapping
from zoo.weights.formats import _lossless
from zoo.weights.formats.keys import Keys, show
from zoo.weights.map import Rename, Rule, Tie

__all__ = [
    "checked",
    "computation",
    "dropouts",
    "embedding_dropout",
    "embedding_rows",
    "heads_of",
    "holds",
    "named",
    "need",
    "read_rope",
    "read_special",
    "read_windows",
    "stack_computation",
    "text_keys",
    "write_rope",
    "write_special",
]

# Keys of text models' configs that say nothing about the numbers: where the file was made, how it
# was split over machines, which kernel or precision computes a formula, heads of other tasks.
SILENT = (
    "_attn_implementation", "attn_implementation", "auto_map", "bias_dropout_fusion",
    "attention_softmax_in_fp32", "masked_softmax_fusion", "output_past", "pretraining_tp",
    "scale_attention_softmax_in_fp32", "slow_but_exact", "summary_activation",
    "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
    "transformers.js_config", "unk_token_id",
)  # fmt: skip


def text_keys(content: dict[str, Any]) -> Keys:
    """Returns the keys of a text model's config.json, the silent ones marked as known."""
    keys = Keys(content)
    keys.ignore_generic()
    keys.ignore(*SILENT)
    return keys


def need(keys: Keys, key: str, kind: type) -> Any:
    """Returns the value of a key that must be there."""
    if key not in keys:
        raise ConfigError(f"{keys.where}: {key!r} is missing.")
    return keys.take(key, None, kind)


def named(keys: Keys, *names: str, default: int | None = None) -> int:
    """Returns a whole number that several keys may hold (`n_head`, `num_attention_heads`)."""
    given = {name: keys.take(name, None, int) for name in names if name in keys}
    keys.ignore(*names)
    if len(set(given.values())) > 1:
        said = ", ".join(f"{name!r} = {value}" for name, value in given.items())
        raise ConfigError(f"{keys.where}: {said} should be one number.")
    if not given and default is not None:
        return default
    return need(keys, next(iter(given), names[0]), int)


# -- special tokens --------------------------------------------------------------------------------


def read_special(keys: Keys) -> dict[str, int]:
    """Returns our `special`; further ends of a text (Llama 3 has three) become eos_2, eos_3."""
    special: dict[str, int] = {}
    for role in ("bos", "eos", "pad"):
        given = keys.take(f"{role}_token_id", [], int, list)
        for index, token in enumerate(given if isinstance(given, list) else [given]):
            if type(token) is not int:
                raise ConfigError(f"{keys.where}: '{role}_token_id' must be whole numbers.")
            if token >= 0:  # -1 says that there is none
                special[role if index == 0 else f"{role}_{index + 1}"] = token
    return special


def write_special(special: dict[str, int]) -> dict[str, Any]:
    """Returns the public keys of our `special`."""
    public: dict[str, Any] = {}
    for role in ("bos", "eos", "pad"):
        further = sorted(name for name in special if name.startswith(f"{role}_"))
        tokens = [special[name] for name in (role, *further) if name in special]
        public[f"{role}_token_id"] = tokens if len(tokens) > 1 else next(iter(tokens), None)
    return public


# -- dropout, windows ------------------------------------------------------------------------------


def dropouts(residual: float, embedding: float) -> dict[str, Any]:
    """Returns our keys for dropout on sublayers and on embeddings."""
    return {
        "dropout": residual,
        "embedding_dropout": None if embedding == residual else embedding,
    }


def embedding_dropout(backbone: Any) -> float:
    """Returns the dropout on the embeddings that a backbone means."""
    own = backbone.embedding_dropout
    return backbone.dropout if own is None else own


def read_windows(windows: list[int | None]) -> tuple[int | None, list[dict[str, Any]]]:
    """Returns (attention.window, layers) for the window of each layer."""
    if len(set(windows)) <= 1:
        return next(iter(windows), None), []
    return None, [{"attention": {"window": w}} if w is not None else {} for w in windows]


# -- rotary positions ------------------------------------------------------------------------------


def read_rope(keys: Keys, length: int) -> dict[str, Any]:
    """Returns our position 'rope' of what transformers 4 (`rope_theta`, `rope_scaling`) or 5
    (`rope_parameters`) writes; refuses types and keys that are not implemented."""
    keys.only("rope_interleaved", False, None)
    keys.only("use_mrope", False, None)
    keys.only("partial_rotary_factor", 1, None)
    theta = keys.take("rope_theta", 10000.0, float)
    outer = keys.take("original_max_position_embeddings", 0, int)
    old, new = keys.section("rope_scaling"), keys.section("rope_parameters")
    rope = old if old.content else new
    kind = rope.take("rope_type", rope.take("type", "default"), str)
    rope.ignore("type")
    rope.only("partial_rotary_factor", 1, None)
    position: dict[str, Any] = {"kind": "rope", "theta": rope.take("rope_theta", theta, float)}
    if kind == "default":
        rope.finish("rope")
        return position
    if kind not in ("linear", "dynamic", "llama3", "yarn"):
        raise ConfigError(
            f"{rope.where}: rope_type {show(kind)} is not implemented here, only default, linear, "
            "dynamic, llama3 and yarn."
        )
    position["scaling"] = kind
    inner = rope.take("original_max_position_embeddings", length, int)
    position["original_length"] = length if kind == "dynamic" else outer or inner
    if kind == "dynamic":
        rope.only("original_max_position_embeddings", length, None)
    if kind == "llama3":
        position["low_frequency_factor"] = need(rope, "low_freq_factor", float)
        position["high_frequency_factor"] = need(rope, "high_freq_factor", float)
    if kind == "yarn":
        stretch = length / position["original_length"]
        position["factor"] = rope.take("factor", stretch, float)
        position["beta_fast"] = rope.take("beta_fast", 32.0, float)
        position["beta_slow"] = rope.take("beta_slow", 1.0, float)
        position["attention_factor"] = _yarn_factor(rope, position["factor"])
        rope.only("truncate", True, None)
    else:
        position["factor"] = need(rope, "factor", float)
    rope.finish("rope")
    return position


def _yarn_factor(rope: Keys, factor: float) -> float | None:
    """Returns the factor on cos and sin: given, or a ratio of two as DeepSeek writes it."""
    given = rope.take("attention_factor", None, float)
    above, below = rope.take("mscale", 0.0, float), rope.take("mscale_all_dim", 0.0, float)
    if given is not None or not (above and below):
        return given
    return (0.1 * above * math.log(factor) + 1) / (0.1 * below * math.log(factor) + 1)


def write_rope(position: Any) -> dict[str, Any]:
    """Returns the public keys of our position 'rope', as transformers 5 and 4 write them."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": position.theta}
    if position.scaling != "none":
        rope.update(rope_type=position.scaling, factor=position.factor)
    if position.scaling in ("llama3", "yarn"):
        rope["original_max_position_embeddings"] = position.original_length
    if position.scaling == "llama3":
        rope["low_freq_factor"] = position.low_frequency_factor
        rope["high_freq_factor"] = position.high_frequency_factor
    if position.scaling == "yarn":
        rope.update(beta_fast=position.beta_fast, beta_slow=position.beta_slow)
        if position.attention_factor is not None:
            rope["attention_factor"] = position.attention_factor
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    return {
        "rope_parameters": rope,
        "rope_theta": position.theta,
        "rope_scaling": None if position.scaling == "none" else scaling,
    }


# -- maps ------------------------------------------------------------------------------------------


def heads_of(config: Any) -> tuple[int, int, int] | None:
    """Returns (heads, key heads, head_dim), or None where another mixer has taken the place of
    attention, so that its weights have none."""
    attention = config.backbone.attention
    return attention.shape(config.backbone.width) if attention.zoo_kind == "multihead" else None


def embedding_rows(config: Any, table: str, head: str = "lm_head.weight") -> list[Rule]:
    """Returns the rows of the embedding and the head; files of tied models may hold both."""
    if config.tied:
        return [Tie([table, head], ["embedding.table.weight"])]
    return [Rename(table, "embedding.table.weight"), Rename(head, "head.weight")]


# -- exports ---------------------------------------------------------------------------------------

# What a public config does not hold and need not, because it changes nothing in what the loaded
# model computes: weights, card, text, how it is trained, memory against time.
NOT_STORED = ("weights", "card", "tokenizer", "special")
NOT_STORED_OF_A_BLOCK = (
    "length", "layers", "position", "final_norm", "embedding_norm", "depth", "dropout",
    "embedding_dropout", "drop_path", "init_std", "init_residual", "checkpoint",
)  # fmt: skip


def holds(format: str, config: Any, stack: str = "backbone", **parts: str) -> None:
    """Refuses a model whose backbone (or other stack) has other kinds of parts than the format has
    words for.

    `position` is the only position that it holds, "none" for none at all.
    """
    backbone = getattr(config, stack)
    for key, wanted in {"attention": "multihead", **parts}.items():
        value = getattr(backbone, key)
        found = value.zoo_kind if key != "position" else " + ".join(p.zoo_kind for p in value)
        if (found or "none") != wanted:
            raise ConfigError(
                f"Format {format!r} has no word for {key} {found or 'none'!r} (only {wanted!r}); "
                "format 'zoo' holds every model."
            )


def checked(
    format: Any, config: Any, public: dict[str, Any], names: Collection[str] = frozenset()
) -> dict[str, Any]:
    """Returns `public` if reading it (beside tensors of these names) gives a model that computes
    what `config` says; raises ConfigError naming what would be lost."""
    return _lossless.checked(format, config, public, computation, names)


def computation(config: Any) -> dict[str, Any]:
    """Returns what decides the numbers, the same for two ways to write the same."""
    plain = to_mapping(config, omit=NOT_STORED)
    for name in ("backbone", "encoder", "decoder"):
        if getattr(config, name, None) is not None:
            plain[name] = stack_computation(getattr(config, name))
    return plain


def stack_computation(backbone: Any) -> dict[str, Any]:
    """Returns the same of one stack."""
    blocks = [_block(backbone.block(index)) for index in range(backbone.depth)]
    positions = [to_mapping(position) for position in backbone.position]
    for position, plain in zip(backbone.position, positions, strict=True):
        if position.zoo_kind == "rope":
            plain.clear()
            plain.update(write_rope(position)["rope_parameters"], fraction=position.fraction)
            if position.scaling == "dynamic":
                plain["original_length"] = position.original_length
        elif "length" in plain:
            plain["length"] = plain["length"] or backbone.length
    norms = {key: getattr(backbone, key) for key in ("final_norm", "embedding_norm")}
    norm = {"norm": to_mapping(backbone.norm)} if any(norms.values()) else {}
    return {**norms, **norm, "position": positions, "blocks": blocks}


def _block(config: Any) -> dict[str, Any]:
    plain = to_mapping(config, omit=NOT_STORED_OF_A_BLOCK)
    plain["feedforward"].update(
        hidden=config.feedforward.inner(config.width), ratio=None, dropout=None
    )
    for key in ("attention", "cross_attention"):
        attention, typed = plain[key], getattr(config, key)
        if attention is None or attention["kind"] != "multihead":
            continue
        heads, kv_heads, head_dim = typed.shape(config.width)
        scale = typed.scale or head_dim**-0.5
        attention.update(heads=heads, kv_heads=kv_heads, head_dim=head_dim, scale=scale)
        attention["dropout"] = None
        if attention["kernel"]["kind"] in ("sdpa", "plain"):  # two ways to the same numbers
            attention["kernel"] = "exact"
    if not config.parallel:
        plain["parallel_norms"] = None
    return plain
