"""NVIDIA's Parakeet as transformers stores it: FastConformer with a CTC head, a transducer (RNN-T)
or a token-and-duration transducer (`parakeet_ctc`, `parakeet_rnnt`, `parakeet_tdt`).

Also what any Conformer of ours with separable subsampling is written as.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
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
from zoo.weights.formats.keys import Keys, public_activation
from zoo.weights.map import Rename, Rule, Squeeze, WeightMap

__all__ = ["FORMATS"]

USUAL = {"convention": "nemo", "preemphasis": 0.97}
EXTRACTOR = "ParakeetFeatureExtractor"
HEADS = {"ctc": "ParakeetForCTC", "rnnt": "ParakeetForRNNT", "tdt": "ParakeetForTDT"}


def read_config(content: dict[str, Any], names: Collection[str], head: str) -> dict[str, Any]:
    """Returns our keys of a Parakeet config.json."""
    # transducers count as encoder-decoders there
    keys = Keys({k: v for k, v in content.items() if k != "is_encoder_decoder"})
    keys.ignore_generic()
    keys.ignore(FEATURES, "initializer_range")
    keys.architecture(HEADS[head])
    encoder = keys.section("encoder_config")
    encoder.ignore_generic()
    backbone = read_encoder(encoder)
    backbone |= {
        "position": {"kind": "transformer-xl", "layout": "interleaved"},
        "residual": {"feedforward": [1.0, 0.5]},
        "final_norm": False,
    }
    bins = encoder.take("num_mel_bins", 80)
    encoder.only("subsampling_conv_stride", 2)
    subsampling = {
        "layout": "separable",
        "factor": encoder.take("subsampling_factor", 8),
        "channels": encoder.take("subsampling_conv_channels", 256),
        "kernel": encoder.take("subsampling_conv_kernel_size", 3),
        "pad": True,
        "scale": encoder.take("scale_input", True),
    }
    encoder.finish(f"transformers-parakeet-{head}")
    bank = read_features(content.get(FEATURES, {}), bins, USUAL, EXTRACTOR)
    node = {
        "sound": {"kind": "spectrogram", "filterbank": bank, "subsampling": subsampling},
        "backbone": backbone,
        "vocabulary": keys.take("vocab_size", 1025 if head == "ctc" else 8193),
        "blank": keys.take("pad_token_id" if head == "ctc" else "blank_token_id", 1024),
    }
    if head == "ctc":
        keys.ignore("ctc_loss_reduction", "ctc_zero_infinity")
    else:
        node["prediction"] = {
            "width": keys.take("decoder_hidden_size", 640),
            "layers": keys.take("num_decoder_layers", 2),
            "activation": keys.activation("hidden_act", "relu"),
        }
        node["max_symbols"] = keys.take("max_symbols_per_step", 10)
    if head == "tdt":
        node["durations"] = list(keys.take("durations", [0, 1, 2, 3, 4], list, tuple))
    keys.finish(f"transformers-parakeet-{head}")
    return node


def write_config(config: Any, head: str) -> dict[str, Any]:
    """Returns a Parakeet config.json; raises ConfigError for what it cannot say."""
    if config.sound.zoo_kind != "spectrogram":
        raise ConfigError(
            f"Format 'transformers-parakeet-{head}' has no word for sound "
            f"{config.sound.zoo_kind!r} (only 'spectrogram'); format 'zoo' holds every model."
        )
    bank = config.sound.filterbank
    public: dict[str, Any] = {
        "model_type": f"parakeet_{head}",
        "architectures": [HEADS[head]],
        "vocab_size": config.vocabulary,
        "encoder_config": {
            "model_type": "parakeet_encoder",
            **write_encoder(config),
            "subsampling_factor": config.sound.subsampling.factor,
            "subsampling_conv_stride": 2,
            "scale_input": config.sound.subsampling.scale,
        },
        FEATURES: {
            "feature_extractor_type": EXTRACTOR,
            "feature_size": bank.bins,
            "sampling_rate": bank.rate,
            "hop_length": bank.hop,
            "n_fft": bank.fft,
            "win_length": bank.window,
            "preemphasis": bank.preemphasis,
        },
    }
    public["pad_token_id" if head == "ctc" else "blank_token_id"] = config.blank
    if head != "ctc":
        public |= {
            "decoder_hidden_size": config.prediction.width,
            "num_decoder_layers": config.prediction.layers,
            "hidden_act": public_activation(config.prediction.activation),
            "max_symbols_per_step": config.max_symbols,
            "is_encoder_decoder": True,
        }
    if head == "tdt":
        public["durations"] = config.durations
    return checked(BY_HEAD[head], config, public)


def weight_map(config: Any, head: str) -> WeightMap:
    """Returns the map of the tensors."""
    bias = getattr(config.backbone.convolution, "bias", True)
    rows = [*_subsampling(config), *layer_rows(bias, relative=True)]
    if head == "ctc":
        rows += [
            Rename("ctc_head.weight", "head.weight", Squeeze(2)),
            Rename("ctc_head.bias", "head.bias"),
        ]
    else:
        rows += [
            Rename("encoder_projector.", "project."),
            Rename("decoder.embedding.", "prediction.embedding."),
            Rename("decoder.lstm.", "prediction.lstm."),
            Rename("decoder.decoder_projector.", "prediction.out."),
            Rename("joint.", "joint."),
        ]
    return WeightMap(rows)


def _subsampling(config: Any) -> list[Rule]:
    """Their layers are numbered with the activations: 0, then two for each later stage."""
    theirs, ours = "encoder.subsampling.layers.", "sound.subsampling.stages."
    rows = [Rename(f"{theirs}0.", f"{ours}0.0.")]
    for stage in range(1, config.sound.subsampling.stages):
        rows.append(Rename(f"{theirs}{3 * stage - 1}.", f"{ours}{stage}.0."))
        rows.append(Rename(f"{theirs}{3 * stage}.", f"{ours}{stage}.1."))
    return [*rows, Rename("encoder.subsampling.linear.", "sound.subsampling.out.")]


BY_HEAD = {
    head: Format(
        f"transformers-parakeet-{head}",
        "ctc" if head == "ctc" else "transducer",
        partial(read_config, head=head),
        partial(write_config, head=head),
        partial(weight_map, head=head),
        model_types=(f"parakeet_{head}",),
        companions=(FEATURES,),
    )
    for head in HEADS
}
FORMATS = list(BY_HEAD.values())
