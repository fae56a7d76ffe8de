"""Whisper as OpenAI stores it: one `.pt` of `{"dims": …, "model_state_dict": …}`, without files
beside it. Keys have no bias; the table of sines is stored, and computed here."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._pair import STACKS, fused
from zoo.weights.formats._text import checked, holds, need
from zoo.weights.formats._whisper import POSITIONS, languages_of, seconds_of, sines, stacks
from zoo.weights.formats.keys import Keys
from zoo.weights.map import Compute, Rename, Rule, WeightMap

NAME = "openai-whisper"
WORDS = {"encoder": "audio", "decoder": "text"}  # in the names of dimensions
ONLY = ("n_mels", "n_vocab", "n_audio_ctx", "n_text_ctx")


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of a checkpoint's dimensions."""
    outer = Keys(content)
    outer.ignore("model_type")
    keys = outer.section("dims")
    bins, vocabulary, positions, length = (need(keys, key, int) for key in ONLY)
    both = {}
    for name, word in WORDS.items():
        size = {part: need(keys, f"n_{word}_{part}", int) for part in ("state", "head", "layer")}
        attention = {"kind": "multihead", "heads": size["head"]}
        both[name] = {"depth": size["layer"], "width": size["state"], "attention": attention}
    both["decoder"]["length"] = length
    keys.finish(NAME)
    node = {
        "vocabulary": vocabulary,
        "sound": {"kind": "log-mel", "bins": bins, "seconds": seconds_of(positions)},
        "alignment_heads": outer.take("alignment_heads", [], list),
        **languages_of(vocabulary),
        **stacks(both["encoder"], both["decoder"], positions),
    }
    outer.finish(NAME)
    return node


def write_config(config: Any) -> dict[str, Any]:
    """Returns a checkpoint's dimensions (and the heads that follow the words, which OpenAI keeps in
    its code); raises ConfigError for what they cannot say."""
    sizes = [config.sound.bins, config.vocabulary, config.encoder.length, config.decoder.length]
    dims = dict(zip(ONLY, sizes, strict=True))
    for name, position in zip(STACKS, POSITIONS, strict=True):
        cross = {"cross_attention": "multihead"} if name == "decoder" else {}
        holds(NAME, config, name, norm="layer", feedforward="mlp", position=position, **cross)
        stack, word = getattr(config, name), WORDS[name]
        dims[f"n_{word}_state"] = stack.width
        dims[f"n_{word}_head"] = stack.attention.shape(stack.width)[0]
        dims[f"n_{word}_layer"] = stack.depth
    if not config.tied:
        raise ConfigError(f"Format {NAME!r} has no word for tied = False.")
    public = {"model_type": NAME, "dims": dims, "alignment_heads": config.alignment_heads}
    return checked(FORMAT, config, public)


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    return WeightMap(
        [
            Rename("decoder.token_embedding.weight", "embedding.table.weight"),
            Rename("encoder.conv1.", "sound.conv1."),
            Rename("encoder.conv2.", "sound.conv2."),
            Compute("encoder.positional_embedding", partial(sines, config)),
            Rename("decoder.positional_embedding", "decoder.positions.0.weight"),
            *_stack_rows("encoder", config.encoder.width),
            *_stack_rows("decoder", config.decoder.width),
            Rename("encoder.ln_post.", "encoder.final_norm."),
            Rename("decoder.ln.", "decoder.final_norm."),
        ]
    )


def _stack_rows(name: str, width: int) -> list[Rule]:
    theirs, ours = f"{name}.blocks.*.", f"{name}.layers.*."
    own, cross = f"{theirs}attn.", f"{theirs}cross_attn."
    rows: list[Rule] = [
        *fused([f"{own}query.", f"{own}key.", f"{own}value."], f"{ours}attention.qkv.", width),
        Rename(f"{own}out.", f"{ours}attention.out."),
        Rename(f"{theirs}attn_ln.", f"{ours}attention_norm."),
        Rename(f"{theirs}mlp.0.", f"{ours}feedforward.up."),
        Rename(f"{theirs}mlp.2.", f"{ours}feedforward.down."),
        Rename(f"{theirs}mlp_ln.", f"{ours}feedforward_norm."),
    ]
    if name == "decoder":
        rows += [
            Rename(f"{cross}query.", f"{ours}cross_attention.q."),
            *fused([f"{cross}key.", f"{cross}value."], f"{ours}cross_attention.kv.", width),
            Rename(f"{cross}out.", f"{ours}cross_attention.out."),
            Rename(f"{theirs}cross_attn_ln.", f"{ours}cross_attention_norm."),
        ]
    return rows


FORMAT = Format(
    NAME, "whisper", read_config, write_config, weight_map, model_types=(NAME,), marker="dims"
)
