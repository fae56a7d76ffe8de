"""What the formats of encoder-decoders share: their configs' common keys, and the layout of BART
(FSMT, Marian), whose stacks name their parts alike."""

from __future__ import annotations

from typing import Any

from zoo.weights.formats._text import holds, read_special, text_keys, write_special
from zoo.weights.formats.keys import Keys, public_activation
from zoo.weights.map import Fill, Fuse, Rename, Rule

__all__ = [
    "fused",
    "pair_keys",
    "read_pair_special",
    "read_stacks",
    "stack_keys",
    "stack_rows",
    "write_pair_special",
    "write_stacks",
]

STACKS = ("encoder", "decoder")


def pair_keys(content: dict[str, Any]) -> Keys:
    """Returns the keys of an encoder-decoder's config.json, the silent ones marked as known."""
    Keys(content).only("is_encoder_decoder", True, None)
    return text_keys({k: v for k, v in content.items() if k != "is_encoder_decoder"})


def read_pair_special(keys: Keys, start: int | None = None) -> dict[str, int]:
    """Returns our `special`, with the token that every target starts with."""
    special = read_special(keys)
    first = keys.take("decoder_start_token_id", start, int)
    return special if first is None else {**special, "start": first}


def write_pair_special(config: Any) -> dict[str, Any]:
    """Returns the public keys of our `special`."""
    public = write_special(config.special)
    if "start" in config.special:
        public["decoder_start_token_id"] = config.special["start"]
    return public


# -- the layout of BART ----------------------------------------------------------------------------


def read_stacks(keys: Keys, defaults: dict[str, Any], position: dict[str, Any]) -> dict[str, Any]:
    """Returns our two stacks, norms after the sums, of BART's keys (`encoder_layers`, …);
    `defaults` is what the class means where its file is silent."""
    layers, all_heads, hidden = (
        defaults.get(key, usual) for key, usual in (("layers", 12), ("heads", 16), ("ffn", 4096))
    )
    width = keys.take("d_model", defaults["d_model"])
    keys.ignore("encoder_layerdrop", "decoder_layerdrop")  # of training
    activation = keys.activation("activation_function", defaults["activation_function"])
    length = keys.take("max_position_embeddings", 1024)
    dropout = keys.take("dropout", 0.1)
    attention_dropout = keys.take("attention_dropout", 0.0)
    activation_dropout = keys.take("activation_dropout", 0.0)
    std = keys.take("init_std", 0.02)
    stacks = {}
    for name in STACKS:
        heads = keys.take(f"{name}_attention_heads", all_heads)
        attention = {"kind": "multihead", "heads": heads, "dropout": attention_dropout}
        stacks[name] = {
            "kind": "transformer",
            "depth": keys.take(f"{name}_layers", layers),
            "width": width,
            "length": length,
            "placement": "post",
            "final_norm": False,
            "norm": "layer",
            "position": position,
            "attention": attention,
            "feedforward": {
                "hidden": keys.take(f"{name}_ffn_dim", hidden),
                "activation": activation,
                "dropout": activation_dropout,
            },
            "dropout": dropout,
            "init_std": std,
        }
        if name == "decoder":
            stacks[name] |= {"causal": True, "cross_attention": attention}
    # a second name of the encoder's depth, kept by old files
    keys.only("num_hidden_layers", stacks["encoder"]["depth"], None)
    return stacks


def write_stacks(
    format: str, config: Any, positions: tuple[str, str] = ("sinusoidal", "sinusoidal")
) -> dict[str, Any]:
    """Returns BART's keys of our two stacks; raises ConfigError for parts it has no word for."""
    public: dict[str, Any] = {"is_encoder_decoder": True}
    for name, position in zip(STACKS, positions, strict=True):
        cross = {"cross_attention": "multihead"} if name == "decoder" else {}
        parts = {"norm": "layer", "feedforward": "mlp", "position": position, **cross}
        holds(format, config, name, **parts)
        stack = getattr(config, name)
        public |= stack_keys(name, stack)
        public["max_position_embeddings"] = stack.length or 1024
    return public


def stack_keys(name: str, stack: Any) -> dict[str, Any]:
    """Returns the keys in which BART and its kin say one stack, `encoder` or `decoder`."""
    return {
        "d_model": stack.width,
        f"{name}_layers": stack.depth,
        f"{name}_attention_heads": stack.attention.shape(stack.width)[0],
        f"{name}_ffn_dim": stack.feedforward.inner(stack.width),
        "activation_function": public_activation(stack.feedforward.activation),
        "dropout": stack.dropout,
        "attention_dropout": stack.attention.dropout,
        "activation_dropout": stack.feedforward.dropout,
        "init_std": stack.init_std,
    }


def fused(projections: list[str], target: str, keyless: int | None) -> list[Rule]:
    """Returns the rows that make one projection of several (the last two are keys and values):
    weights and biases, or biases without the keys' where `keyless` says how many those are."""
    if keyless is None:
        return [Fuse(projections, target)]
    biases: list[Any] = [f"{name}bias" for name in projections]
    biases[-2] = Fill((keyless,), harmless=True)
    return [
        Fuse([f"{name}weight" for name in projections], f"{target}weight"),
        Fuse(biases, f"{target}bias"),
    ]


def stack_rows(name: str, keyless: int | None = None) -> list[Rule]:
    """Returns the rows of the layers of one stack, `encoder` or `decoder`; `keyless` is its width
    where keys have no bias (Whisper), which no softmax would see."""
    theirs, ours = f"model.{name}.layers.*.", f"{name}.layers.*."
    own = f"{theirs}self_attn."
    rows: list[Rule] = [
        *fused(
            [f"{own}q_proj.", f"{own}k_proj.", f"{own}v_proj."], f"{ours}attention.qkv.", keyless
        ),
        Rename(f"{own}out_proj.", f"{ours}attention.out."),
        Rename(f"{theirs}self_attn_layer_norm.", f"{ours}attention_norm."),
        Rename(f"{theirs}fc1.", f"{ours}feedforward.up."),
        Rename(f"{theirs}fc2.", f"{ours}feedforward.down."),
        Rename(f"{theirs}final_layer_norm.", f"{ours}feedforward_norm."),
    ]
    if name == "decoder":
        cross = f"{theirs}encoder_attn."
        rows += [
            Rename(f"{cross}q_proj.", f"{ours}cross_attention.q."),
            *fused([f"{cross}k_proj.", f"{cross}v_proj."], f"{ours}cross_attention.kv.", keyless),
            Rename(f"{cross}out_proj.", f"{ours}cross_attention.out."),
            Rename(f"{theirs}encoder_attn_layer_norm.", f"{ours}cross_attention_norm."),
        ]
    return rows
