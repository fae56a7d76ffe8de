"""Whisper as transformers stores it (openai/whisper-*, distil-whisper/*).

Keys have no bias. The table of sines is stored; here it is computed. Which heads follow the words,
and which languages there are, stands in generation_config.json.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
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
from zoo.weights.formats._whisper import POSITIONS, languages_of, seconds_of, sines, stacks
from zoo.weights.formats.keys import Keys
from zoo.weights.map import Compute, Rename, Tie, WeightMap

NAME = "transformers-whisper"
PREPROCESSOR, GENERATION = "preprocessor_config.json", "generation_config.json"
FILL = "zoo_fill"  # a key of ours, which transformers keeps and does not read
DEFAULTS = {
    "d_model": 384,
    "activation_function": "gelu",
    "layers": 4,
    "heads": 6,
    "ffn": 1536,
}
# Of training, of heads for other tasks, and of decoding, which reads the vocabulary's layout here.
SILENT = (
    "apply_spec_augment", "classifier_proj_size", "forced_decoder_ids", "lang_ids",
    "mask_feature_length", "mask_feature_min_masks", "mask_feature_prob", "mask_time_length",
    "mask_time_min_masks", "mask_time_prob", "max_length", "median_filter_width",
)  # fmt: skip


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of a Whisper config.json."""
    keys = pair_keys(content)
    keys.architecture("WhisperForConditionalGeneration", "WhisperModel")
    keys.ignore(*SILENT)
    keys.only("scale_embedding", False, None)
    keys.only("use_weighted_layer_sum", False, None)
    keys.only("tie_word_embeddings", True, None)
    positions = keys.take("max_source_positions", 1500)
    bins = keys.take("num_mel_bins", 80)
    both = read_stacks(keys, DEFAULTS, {})
    both["decoder"]["length"] = keys.take("max_target_positions", 448)
    usual = {"placement": "pre", "final_norm": True}
    for stack in both.values():
        stack.update(usual)
    vocabulary = keys.take("vocab_size", 51865)
    generation = keys.take(GENERATION, {}, dict)
    node = {
        "vocabulary": vocabulary,
        "special": read_pair_special(keys),
        "sound": _read_sound(keys.take(PREPROCESSOR, {}, dict), bins, positions),
        "alignment_heads": generation.get("alignment_heads") or [],
        **_read_languages(generation, vocabulary),
        **stacks(both["encoder"], both["decoder"], positions),
    }
    keys.finish(NAME)
    return node


def _read_languages(generation: dict[str, Any], vocabulary: int) -> dict[str, Any]:
    languages = generation.get("lang_to_id")
    if not languages:
        return languages_of(vocabulary)
    return {"languages": len(languages), "multilingual": generation.get("is_multilingual", True)}


def _read_sound(content: dict[str, Any], bins: int, positions: int) -> dict[str, Any]:
    """Returns the spectrogram's keys; without a preprocessor_config.json, Whisper's own."""
    keys = Keys(content, PREPROCESSOR)
    keys.ignore(
        "feature_extractor_type", "processor_class", "mel_filters", "n_samples", "nb_max_frames",
        "padding_side", "return_attention_mask", "chunk_length", "feature_size", "dither",
    )  # fmt: skip
    keys.only("padding_value", 0, None)
    rate, hop = keys.take("sampling_rate", 16000), keys.take("hop_length", 160)
    sound = {
        "kind": "log-mel",
        "bins": bins,
        "rate": rate,
        "window": keys.take("n_fft", 400),
        "hop": hop,
        "seconds": seconds_of(positions, hop, rate),
        "fill": keys.take(FILL, "zero"),
    }
    keys.finish(NAME)
    for key, value in (("feature_size", bins), ("chunk_length", sound["seconds"])):
        if content.get(key, value) != value:
            raise ConfigError(f"{PREPROCESSOR}: {key!r} must be {value}, got {content[key]!r}.")
    if content.get("dither"):
        raise ConfigError(f"{PREPROCESSOR}: 'dither' is not supported.")
    return sound


def write_config(config: Any) -> dict[str, Any]:
    """Returns a Whisper config.json; raises ConfigError for what it cannot say."""
    public = {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "vocab_size": config.vocabulary,
        "num_mel_bins": config.sound.bins,
        "max_source_positions": config.encoder.length,
        "max_target_positions": config.decoder.length,
        "tie_word_embeddings": config.tied,
        **write_stacks(NAME, config, POSITIONS),
        PREPROCESSOR: {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "processor_class": "WhisperProcessor",
            "feature_size": config.sound.bins,
            "sampling_rate": config.sound.rate,
            "hop_length": config.sound.hop,
            "n_fft": config.sound.window,
            "chunk_length": config.sound.seconds,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
            **({FILL: config.sound.fill} if config.sound.fill != "zero" else {}),
        },
        GENERATION: {},
    }
    del public["max_position_embeddings"]
    public |= _write_tokens(config, public[GENERATION])
    return checked(FORMAT, config, public)


def _write_tokens(config: Any, generation: dict[str, Any]) -> dict[str, Any]:
    """Fills a generation_config.json and returns the special tokens' keys of config.json."""
    said = write_pair_special(config) if config.special else {}
    if not config.languages:
        return said
    layout = config.layout
    codes = enumerate(layout.codes, layout.first_language)
    ends = {f"{role}_token_id": layout.end for role in ("bos", "eos", "pad")}
    generation |= {
        **ends,
        "decoder_start_token_id": layout.start,
        "prev_sot_token_id": layout.previous,
        "no_timestamps_token_id": layout.no_times,
        "max_initial_timestamp_index": 50,
        "max_length": config.decoder.length,
        "is_multilingual": config.multilingual,
        "return_timestamps": False,
        # without them, readers take the upper layers' all, as we do
        **({"alignment_heads": config.alignment_heads} if config.alignment_heads else {}),
        "lang_to_id": {f"<|{code}|>": token for token, code in codes},
        "task_to_id": {"transcribe": layout.transcribe, "translate": layout.translate},
    }
    return {**ends, "decoder_start_token_id": layout.start, **said}


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    return WeightMap(
        [
            Tie(
                ["model.decoder.embed_tokens.weight", "proj_out.weight"], ["embedding.table.weight"]
            ),
            Rename("model.encoder.conv1.", "sound.conv1."),
            Rename("model.encoder.conv2.", "sound.conv2."),
            Compute("model.encoder.embed_positions.weight", partial(sines, config)),
            Rename("model.decoder.embed_positions.weight", "decoder.positions.0.weight"),
            *stack_rows("encoder", config.encoder.width),
            *stack_rows("decoder", config.decoder.width),
            Rename("model.encoder.layer_norm.", "encoder.final_norm."),
            Rename("model.decoder.layer_norm.", "decoder.final_norm."),
        ],
        prefixes=["model."],
    )


FORMAT = Format(
    NAME,
    "whisper",
    read_config,
    write_config,
    weight_map,
    model_types=("whisper",),
    companions=(PREPROCESSOR, GENERATION),
    generation=GENERATION,
)
