"""transformers' Wav2Vec2-Conformer (`wav2vec2-conformer`): a Conformer over learned convolutions of
the waveform, with a CTC head or without.

Two tensors of these files take no part in recognition and are left out: the embedding that stands
in for masked spans in pre-training, and a positional convolution that no forward pass calls.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._conformer import FEATURES, ORDER, checked, convolution_rows
from zoo.weights.formats.keys import Keys, public_activation
from zoo.weights.map import Drop, Fuse, Rename, Rule, WeightMap

NAME = "transformers-wav2vec2-conformer"
# of pre-training, of masking in training, of other heads
SILENT = (
    "apply_spec_augment", "classifier_proj_size", "codevector_dim",
    "contrastive_logits_temperature",
    "ctc_loss_reduction", "ctc_zero_infinity", "diversity_loss_weight", "do_stable_layer_norm",
    "feat_quantizer_dropout", "final_dropout", "layerdrop", "mask_feature_length",
    "mask_feature_min_masks", "mask_feature_prob", "mask_time_length", "mask_time_min_masks",
    "mask_time_prob", "mask_channel_length", "mask_channel_min_space", "mask_channel_other",
    "mask_channel_prob", "mask_channel_selection", "mask_time_min_space", "mask_time_other",
    "mask_time_selection", "max_source_positions", "num_codevector_groups",
    "num_codevectors_per_group", "num_conv_pos_embedding_groups", "num_conv_pos_embeddings",
    "num_feat_extract_layers", "num_negatives", "proj_codevector_dim", "rotary_embedding_base",
    "tdnn_dilation", "tdnn_dim", "tdnn_kernel", "use_weighted_layer_sum", "xvector_output_dim",
    "adapter_kernel_size", "adapter_stride", "num_adapter_layers", "feat_proj_dropout",
    "conformer_conv_dropout", "feat_extract_dropout",
)  # fmt: skip


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our keys of a Wav2Vec2-Conformer config.json."""
    keys = Keys(content)
    keys.ignore_generic()
    keys.ignore(FEATURES, *SILENT)
    keys.architecture("Wav2Vec2ConformerForCTC")
    keys.only("add_adapter", False, None)
    width = keys.take("hidden_size", 768)
    keys.only("output_hidden_size", width, None)
    # 'rotary' turns what is projected, not queries and keys
    keys.only("position_embeddings_type", "relative", None)
    relative = keys.content.get("position_embeddings_type", "relative") == "relative"
    eps, activation = keys.take("layer_norm_eps", 1e-5), keys.activation("hidden_act", "gelu")
    if abs(eps - 1e-5) > 1e-12:
        raise ConfigError(
            f"{keys.where}: 'layer_norm_eps' = {eps} is not supported (only 1e-05, which the "
            "layers have whatever it says)."
        )
    count = keys.take("num_feat_extract_layers", 7, int)
    channels = keys.take("conv_dim", [512] * count, list, tuple)
    node = {
        "sound": {
            "kind": "waveform",
            "channels": list(channels),
            "kernels": list(keys.take("conv_kernel", [10, 3, 3, 3, 3, 2, 2], list, tuple)),
            "strides": list(keys.take("conv_stride", [5, 2, 2, 2, 2, 2, 2], list, tuple)),
            "bias": keys.take("conv_bias", False),
            "norm": keys.take("feat_extract_norm", "group"),
            "activation": keys.activation("feat_extract_activation", "gelu"),
            **_read_features(content.get(FEATURES, {})),
        },
        "backbone": {
            "kind": "transformer",
            "depth": keys.take("num_hidden_layers", 12),
            "width": width,
            "attention": {
                "heads": keys.take("num_attention_heads", 12),
                "dropout": keys.take("attention_dropout", 0.1),
            },
            "feedforward": {
                "hidden": keys.take("intermediate_size", 3072),
                "activation": activation,
                "dropout": keys.take("activation_dropout", 0.1),
            },
            "convolution": {
                "kind": "gated",
                "kernel": keys.take("conv_depthwise_kernel_size", 31),
                "bias": False,
                "activation": activation,
            },
            "position": {"kind": "transformer-xl", "layout": "interleaved"} if relative else [],
            "order": ORDER,
            "residual": {"feedforward": [1.0, 0.5]},
            "block_norm": True,
            "final_norm": True,
            "dropout": keys.take("hidden_dropout", 0.1),
            "init_std": keys.take("initializer_range", 0.02),
        },
        "vocabulary": keys.take("vocab_size", 32),
        "blank": keys.take("pad_token_id", 0),
    }
    keys.finish(NAME)
    return node


def _read_features(content: dict[str, Any]) -> dict[str, Any]:
    if not content:
        return {}
    keys = Keys(content, FEATURES)
    keys.ignore("processor_class", "return_attention_mask", "padding_side", "padding_value")
    keys.only("feature_extractor_type", "Wav2Vec2FeatureExtractor", None)
    keys.only("feature_size", 1, None)
    found = {
        "rate": keys.take("sampling_rate", 16000),
        "normalise": keys.take("do_normalize", True),
    }
    keys.finish(NAME)
    return found


def write_config(config: Any) -> dict[str, Any]:
    """Returns a Wav2Vec2-Conformer config.json; raises ConfigError for what it cannot say."""
    backbone, sound = config.backbone, config.sound
    if sound.zoo_kind != "waveform":
        raise ConfigError(
            f"Format {NAME!r} has no word for sound {sound.zoo_kind!r} (only 'waveform'); format "
            "'zoo' holds every model."
        )
    public = {
        "model_type": "wav2vec2-conformer",
        "architectures": ["Wav2Vec2ConformerForCTC"],
        "vocab_size": config.vocabulary,
        "pad_token_id": config.blank,
        "conv_dim": sound.channels,
        "conv_kernel": sound.kernels,
        "conv_stride": sound.strides,
        "num_feat_extract_layers": len(sound.channels),
        "conv_bias": sound.bias,
        "feat_extract_norm": sound.norm,
        "feat_extract_activation": public_activation(sound.activation),
        "hidden_size": backbone.width,
        "num_hidden_layers": backbone.depth,
        "num_attention_heads": backbone.attention.shape(backbone.width)[0],
        "intermediate_size": backbone.feedforward.inner(backbone.width),
        "hidden_act": public_activation(backbone.feedforward.activation),
        "hidden_dropout": backbone.dropout,
        "activation_dropout": backbone.feedforward.dropout,
        "attention_dropout": backbone.attention.dropout,
        "layerdrop": 0.0,
        "layer_norm_eps": backbone.norm.eps,
        "conv_depthwise_kernel_size": getattr(backbone.convolution, "kernel", 31),
        "position_embeddings_type": "relative" if backbone.position else None,
        "initializer_range": backbone.init_std,
        FEATURES: {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": sound.rate,
            "do_normalize": sound.normalise,
        },
    }
    return checked(FORMAT, config, public)


def weight_map(config: Any) -> WeightMap:
    """Returns the map of the tensors."""
    outer = "wav2vec2_conformer."
    stages = f"{outer}feature_extractor.conv_layers."
    norms = len(config.sound.channels) if config.sound.norm == "layer" else 1
    rows: list[Rule] = [
        Rename(f"{stages}*.conv.", "sound.stages.*."),
        *(Rename(f"{stages}{i}.layer_norm.", f"sound.norms.{i}.") for i in range(norms)),
        Rename(f"{outer}feature_projection.layer_norm.", "sound.norm."),
        Rename(f"{outer}feature_projection.projection.", "sound.out."),
        *_layer(f"{outer}encoder.layers.*.", "backbone.layers.*.", bool(config.backbone.position)),
        Rename(f"{outer}encoder.layer_norm.", "backbone.final_norm."),
        Rename("lm_head.", "head."),
        Drop(f"{outer}masked_spec_embed", f"{outer}encoder.pos_conv_embed."),
        Drop(f"{outer}encoder.embed_positions."),
    ]
    return WeightMap(rows)


def _layer(theirs: str, ours: str, relative: bool) -> list[Rule]:
    rows: list[Rule] = [
        Fuse([f"{theirs}self_attn.linear_{p}." for p in "qkv"], f"{ours}attention.qkv."),
        Rename(f"{theirs}self_attn.linear_out.", f"{ours}attention.out."),
        Rename(f"{theirs}self_attn_layer_norm.", f"{ours}attention_norm."),
        Rename(f"{theirs}conv_module.layer_norm.", f"{ours}convolution_norm."),
        *convolution_rows(f"{theirs}conv_module.", f"{ours}convolution.", "batch_norm", False),
        Rename(f"{theirs}final_layer_norm.", f"{ours}block_norm."),
    ]
    for number, name in ((1, "feedforward"), (2, "feedforward_2")):
        rows += [
            Rename(f"{theirs}ffn{number}_layer_norm.", f"{ours}{name}_norm."),
            Rename(f"{theirs}ffn{number}.intermediate_dense.", f"{ours}{name}.up."),
            Rename(f"{theirs}ffn{number}.output_dense.", f"{ours}{name}.down."),
        ]
    if relative:
        part = f"{ours}attention.relative."
        rows += [
            Rename(f"{theirs}self_attn.linear_pos.", f"{part}project."),
            Rename(f"{theirs}self_attn.pos_bias_u", f"{part}content_bias"),
            Rename(f"{theirs}self_attn.pos_bias_v", f"{part}position_bias"),
        ]
    return rows


FORMAT = Format(
    NAME,
    "ctc",
    read_config,
    write_config,
    weight_map,
    model_types=("wav2vec2-conformer",),
    companions=(FEATURES,),
)
