"""Google's LASR as transformers stores it (`lasr_ctc`): rotary positions, weighted residuals,
norms without a shift, convolutions over time alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._conformer import (
    FEATURES,
    checked,
    layer_rows,
    read_encoder,
    read_features,
    write_encoder,
)
from zoo.weights.formats._text import read_rope, write_rope
from zoo.weights.formats.keys import Keys
from zoo.weights.map import Rename, Squeeze, WeightMap

NAME = "transformers-lasr"
USUAL = {
    "convention": "tensorflow",
    "preemphasis": 0.0,
    "low": 125.0,
    "high": 7500.0,
    "normalise": False,
}


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of a LASR config.json."""
    keys = Keys(content)
    keys.ignore_generic()
    keys.ignore(FEATURES, "initializer_range", "ctc_loss_reduction", "ctc_zero_infinity")
    keys.architecture("LasrForCTC")
    encoder = keys.section("encoder_config")
    encoder.ignore_generic()
    length = encoder.take("max_position_embeddings", 10000)
    encoder.content = {  # what differs from Parakeet's defaults
        "hidden_size": 512,
        "num_hidden_layers": 17,
        "intermediate_size": 2048,
        "attention_bias": False,
        "convolution_bias": False,
        "conv_kernel_size": 32,
        **encoder.content,
    }
    backbone = read_encoder(encoder)
    backbone["convolution"]["momentum"] = encoder.take("batch_norm_momentum", 0.01)
    backbone |= {
        "position": read_rope(encoder, length),
        "norm": {"kind": "layer", "eps": encoder.take("layer_norm_eps", 1e-6), "bias": False},
        "residual": {
            "feedforward": _pair(encoder, "feed_forward_residual_weights", [1.5, 0.5]),
            "convolution": _pair(encoder, "conv_residual_weights", [2.0, 1.0]),
        },
        "final_norm": True,
    }
    bins = encoder.take("num_mel_bins", 128)
    encoder.only("subsampling_conv_stride", 2)
    subsampling = {
        "layout": "temporal",
        "factor": 4,
        "channels": encoder.take("subsampling_conv_channels", 256),
        "kernel": encoder.take("subsampling_conv_kernel_size", 5),
        "pad": False,
    }
    encoder.finish(NAME)
    bank = read_features(content.get(FEATURES, {}), bins, USUAL, "LasrFeatureExtractor")
    node = {
        "sound": {"kind": "spectrogram", "filterbank": bank, "subsampling": subsampling},
        "backbone": backbone,
        "vocabulary": keys.take("vocab_size", 512),
        "blank": keys.take("pad_token_id", 0),
    }
    keys.finish(NAME)
    return node


def _pair(keys: Keys, key: str, default: list[float]) -> list[float]:
    value = [float(number) for number in keys.take(key, default, list, tuple)]
    if len(value) != 2:
        raise ConfigError(f"{keys.where}: {key!r} must be two numbers.")
    return value


def write_config(config: Any) -> dict[str, Any]:
    """Returns a LASR config.json; raises ConfigError for what it cannot say."""
    backbone, kinds = config.backbone, [p.zoo_kind for p in config.backbone.position]
    if config.sound.zoo_kind != "spectrogram" or kinds != ["rope"]:
        raise ConfigError(
            f"Format {NAME!r} has no word for other than spectrograms and position 'rope'; format "
            "'zoo' holds every model."
        )
    bank = config.sound.filterbank
    public = {
        "model_type": "lasr_ctc",
        "architectures": ["LasrForCTC"],
        "vocab_size": config.vocabulary,
        "pad_token_id": config.blank,
        "encoder_config": {
            "model_type": "lasr_encoder",
            **write_encoder(config),
            "subsampling_conv_stride": 2,
            "layer_norm_eps": backbone.norm.eps,
            "feed_forward_residual_weights": backbone.residual.get("feedforward", [1.0, 1.0]),
            "conv_residual_weights": backbone.residual.get("convolution", [1.0, 1.0]),
            "batch_norm_momentum": getattr(backbone.convolution, "momentum", 0.01),
            "rope_parameters": write_rope(backbone.position[0])["rope_parameters"],
        },
        FEATURES: {
            "feature_extractor_type": "LasrFeatureExtractor",
            "feature_size": bank.bins,
            "sampling_rate": bank.rate,
            "hop_length": bank.hop,
            "n_fft": bank.fft,
            "win_length": bank.window,
        },
    }
    return checked(FORMAT, config, public)


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    theirs, ours = "encoder.subsampler.", "sound.subsampling."
    bias = getattr(config.backbone.convolution, "bias", False)
    return WeightMap(
        [
            Rename(f"{theirs}dense_0.", f"{ours}enter."),
            Rename(f"{theirs}conv_*.", f"{ours}stages.*."),
            Rename(f"{theirs}dense_1.", f"{ours}out."),
            *layer_rows(bias, relative=False),
            Rename("encoder.out_norm.", "backbone.final_norm."),
            Rename("ctc_head.weight", "head.weight", Squeeze(2)),
            Rename("ctc_head.bias", "head.bias"),
        ]
    )


FORMAT = Format(
    NAME,
    "ctc",
    read_config,
    write_config,
    weight_map,
    model_types=("lasr_ctc",),
    companions=(FEATURES,),
)
