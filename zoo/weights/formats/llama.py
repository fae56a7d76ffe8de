"""Llama as transformers stores it, and its relatives Mistral, Qwen2 and Qwen3, which differ in
biases, windows and norms of queries and keys; and Meta's own files of Llama.

| model type | q, k, v bias     | output bias      | windows         | q and k norms |
|------------|------------------|------------------|-----------------|---------------|
| llama      | `attention_bias` | `attention_bias` | none            | no            |
| mistral    | no               | no               | one for all     | no            |
| qwen2      | yes              | no               | layer by layer  | no            |
| qwen3      | `attention_bias` | `attention_bias` | layer by layer  | yes           |
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._text import (
    checked,
    embedding_rows,
    heads_of,
    holds,
    need,
    read_rope,
    read_special,
    read_windows,
    text_keys,
    write_rope,
    write_special,
)
from zoo.weights.formats.keys import Keys, public_activation, show
from zoo.weights.map import Drop, Fuse, HalfSplit, Rename, Rule, WeightMap

NAME, META = "transformers-llama", "meta-llama"

# What each class means where its file is silent.
LENGTHS = {"llama": 2048, "mistral": 131072, "qwen2": 32768, "qwen3": 32768}
KV_HEADS = {"mistral": 8, "qwen2": 32, "qwen3": 32}
CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of a Llama, Mistral, Qwen2 or Qwen3 config.json."""
    keys = text_keys(content)
    kind = keys.take("model_type", "llama")
    keys.ignore("is_llama_config")
    width, heads = need(keys, "hidden_size", int), need(keys, "num_attention_heads", int)
    depth, eps = need(keys, "num_hidden_layers", int), keys.take("rms_norm_eps", 1e-6)
    length = keys.take("max_position_embeddings", LENGTHS[kind])
    silent = heads if "num_key_value_heads" in keys.content else KV_HEADS.get(kind, heads)
    bias = keys.take("attention_bias", False) if kind in ("llama", "qwen3") else kind == "qwen2"
    if kind not in ("llama", "qwen3"):
        keys.only("attention_bias", bias, None)
    window, layers = read_windows(_windows(keys, kind, depth))
    node = {
        "vocabulary": need(keys, "vocab_size", int),
        "tied": keys.take("tie_word_embeddings", False),
        "special": read_special(keys),
        "backbone": {
            "kind": "transformer",
            "causal": True,
            "depth": depth,
            "width": width,
            "length": length,
            "norm": {"kind": "rms", "eps": eps},
            "attention": {
                "heads": heads,
                "kv_heads": keys.take("num_key_value_heads", silent),
                "head_dim": keys.take("head_dim", 128 if kind == "qwen3" else width // heads),
                "qkv_bias": bias,
                "out_bias": bias and kind != "qwen2",
                "qk_norm": {"kind": "rms", "eps": eps} if kind == "qwen3" else None,
                "window": window,
                "dropout": keys.take("attention_dropout", 0.0),
            },
            "feedforward": {
                "kind": "gated",
                "hidden": need(keys, "intermediate_size", int),
                "activation": keys.activation("hidden_act", "silu"),
                "bias": keys.take("mlp_bias", False) if kind == "llama" else False,
            },
            "position": read_rope(keys, length),
            "layers": layers,
            "init_std": keys.take("initializer_range", 0.02),
        },
    }
    if kind != "llama":
        keys.only("mlp_bias", False, None)
    keys.finish(NAME)
    return node


def _windows(keys: Keys, kind: str, depth: int) -> list[int | None]:
    """Returns the window of each layer."""
    if kind == "llama":
        keys.only("sliding_window", None)
        keys.only("use_sliding_window", False, None)
        return [None] * depth
    said = "sliding_window" in keys.content
    window = keys.take("sliding_window", None if said else 4096, int)
    if kind == "mistral":
        return [window] * depth
    used = keys.take("use_sliding_window", False)
    first = keys.take("max_window_layers", 28)
    types = ["sliding_attention" if used and i >= first else "full_attention" for i in range(depth)]
    types = keys.take("layer_types", types)
    if len(types) != depth or not set(types) <= {"sliding_attention", "full_attention"}:
        raise ConfigError(
            f"{keys.where}: 'layer_types' must name sliding_attention or full_attention for each "
            f"of {depth} layers, got {show(types)}."
        )
    return [window if used and said == "sliding_attention" else None for said in types]


def write_config(config: Any) -> dict[str, Any]:
    """Returns the config.json of whichever of the four model types can say `config`; raises
    ConfigError when none can."""
    holds(NAME, config, norm="rms", feedforward="gated", position="rope")
    backbone, attention = config.backbone, config.backbone.attention
    heads, kv_heads, head_dim = attention.shape(backbone.width)
    windows = [backbone.block(index).attention.window for index in range(backbone.depth)]
    kind = "llama"
    if any(windows):
        kind = "mistral"
    if len(set(windows)) > 1 or (attention.qkv_bias and not attention.out_bias):
        kind = "qwen2"
    if attention.qk_norm is not None:
        kind = "qwen3"
    public = {
        "model_type": kind,
        "architectures": [f"{CLASSES[kind]}ForCausalLM"],
        "vocab_size": config.vocabulary,
        "hidden_size": backbone.width,
        "intermediate_size": backbone.feedforward.inner(backbone.width),
        "num_hidden_layers": backbone.depth,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "hidden_act": public_activation(backbone.feedforward.activation),
        "max_position_embeddings": backbone.length or LENGTHS[kind],
        "rms_norm_eps": backbone.norm.eps,
        "attention_dropout": attention.dropout,
        "initializer_range": backbone.init_std,
        "tie_word_embeddings": config.tied,
        **write_rope(backbone.position[0]),
        **write_special(config.special),
    }
    if kind in ("llama", "qwen3"):
        public["attention_bias"] = attention.qkv_bias
    if kind == "llama":
        public["mlp_bias"] = backbone.feedforward.bias
    if kind != "llama":
        public["sliding_window"] = next((w for w in windows if w), None)
    if kind in ("qwen2", "qwen3"):
        types = ["sliding_attention" if w else "full_attention" for w in windows]
        full = types.index("sliding_attention") if any(windows) else len(types)
        public.update(use_sliding_window=any(windows), max_window_layers=full, layer_types=types)
    return checked(FORMAT, config, public)


def weight_map(config: Any, stack: str = "model.") -> WeightMap:
    """Returns the map of the tensors; `stack` is what the names of all but the head begin with."""
    theirs, ours = f"{stack}layers.*.", "backbone.layers.*."
    backbone, sizes = config.backbone, _sizes(config)
    rows: list[Rule] = [
        *embedding_rows(config, f"{stack}embed_tokens.weight"),
        Rename(f"{theirs}input_layernorm.", f"{ours}attention_norm."),
        Rename(f"{theirs}post_attention_layernorm.", f"{ours}feedforward_norm."),
        Rename(f"{theirs}self_attn.o_proj.", f"{ours}attention.out."),
        Rename(f"{theirs}mlp.down_proj.", f"{ours}feedforward.down."),
        Rename(f"{stack}norm.", "backbone.final_norm."),
        Drop(f"{theirs}self_attn.rotary_emb.inv_freq", f"{stack}rotary_emb.inv_freq"),
    ]
    if sizes is not None:
        for end in ["weight", "bias"] if backbone.attention.qkv_bias else ["weight"]:
            parts = [f"{theirs}self_attn.{part}_proj.{end}" for part in "qkv"]
            rows.append(Fuse(parts, f"{ours}attention.qkv.{end}", sizes=sizes))
    for end in ["weight", "bias"] if backbone.feedforward.bias else ["weight"]:
        parts = [f"{theirs}mlp.{part}_proj.{end}" for part in ("gate", "up")]
        rows.append(Fuse(parts, f"{ours}feedforward.gate_up.{end}"))
    if sizes is not None and backbone.attention.qk_norm is not None:
        rows.append(Rename(f"{theirs}self_attn.q_norm.", f"{ours}attention.q_norm."))
        rows.append(Rename(f"{theirs}self_attn.k_norm.", f"{ours}attention.k_norm."))
    return WeightMap(rows, prefixes=[stack])


def _sizes(config: Any) -> list[int] | None:
    """Returns the rows of queries, keys and values in the fused projection, if there is one."""
    shape = heads_of(config)
    if shape is None:
        return None
    heads, kv_heads, head_dim = shape
    return [heads * head_dim, kv_heads * head_dim, kv_heads * head_dim]


# -- Meta's own files ------------------------------------------------------------------------------


def read_params(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of the params.json beside Meta's `consolidated.*.pth`."""
    keys = Keys(content, "params.json")
    width, heads = need(keys, "dim", int), need(keys, "n_heads", int)
    # Two thirds of 4 x width, stretched, rounded up to a multiple.
    hidden = int(keys.take("ffn_dim_multiplier", 1.0) * int(2 * 4 * width / 3))
    multiple = keys.take("multiple_of", 256)
    rope: dict[str, Any] = {"kind": "rope", "theta": keys.take("rope_theta", 10000.0)}
    if keys.take("use_scaled_rope", False):
        rope.update(scaling="llama3", factor=8.0, original_length=8192)
    vocabulary = need(keys, "vocab_size", int)
    if vocabulary < 1:
        raise ConfigError(
            f"params.json: 'vocab_size' = {vocabulary} is for the tokenizer to say; write it there."
        )
    node = {
        "vocabulary": vocabulary,
        "tied": False,
        "backbone": {
            "kind": "transformer",
            "causal": True,
            "depth": need(keys, "n_layers", int),
            "width": width,
            "norm": {"kind": "rms", "eps": keys.take("norm_eps", 1e-5)},
            "attention": {
                "heads": heads,
                "kv_heads": keys.take("n_kv_heads", heads),
                "qkv_bias": False,
                "out_bias": False,
            },
            "feedforward": {
                "kind": "gated",
                "hidden": multiple * -(-hidden // multiple),
                "bias": False,
            },
            "position": rope,
        },
    }
    keys.finish(META)
    return node


def write_params(config: Any) -> dict[str, Any]:
    """Refuses: what is written for others goes out in the layout that they read."""
    raise ConfigError(f"Format {META!r} is only read; {NAME!r} writes the same model.")


def meta_map(config: Any) -> WeightMap:
    """Returns the map of the tensors; rotary pairs are neighbours in Meta's files."""
    theirs, ours = "layers.*.", "backbone.layers.*."
    heads, kv_heads, head_dim = config.backbone.attention.shape(config.backbone.width)
    qkv: list[Any] = [
        (f"{theirs}attention.wq.weight", HalfSplit(heads, head_dim)),
        (f"{theirs}attention.wk.weight", HalfSplit(kv_heads, head_dim)),
        f"{theirs}attention.wv.weight",
    ]
    gate_up = [f"{theirs}feed_forward.w1.weight", f"{theirs}feed_forward.w3.weight"]
    return WeightMap(
        [
            *embedding_rows(config, "tok_embeddings.weight", "output.weight"),
            Rename(f"{theirs}attention_norm.", f"{ours}attention_norm."),
            Rename(f"{theirs}ffn_norm.", f"{ours}feedforward_norm."),
            Fuse(qkv, f"{ours}attention.qkv.weight", sizes=_sizes(config)),
            Rename(f"{theirs}attention.wo.", f"{ours}attention.out."),
            Fuse(gate_up, f"{ours}feedforward.gate_up.weight"),
            Rename(f"{theirs}feed_forward.w2.", f"{ours}feedforward.down."),
            Rename("norm.", "backbone.final_norm."),
            Drop("rope.freqs"),
        ]
    )


FORMAT = Format(
    NAME, "causal-lm", read_config, write_config, weight_map, model_types=tuple(CLASSES)
)
FORMATS = [Format(META, "causal-lm", read_params, write_params, meta_map)]
