"""Bloom's config.json: what hubs hold, what is refused, what an export cannot say."""

import pytest

import zoo
from tests.weights.formats.decoders import read, same_model
from zoo.errors import ConfigError
from zoo.weights.formats import formats

HUB = {
    "apply_residual_connection_post_layernorm": False,
    "attention_dropout": 0.0,
    "attention_softmax_in_fp32": True,
    "architectures": ["BloomForCausalLM"],
    "bias_dropout_fusion": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_dropout": 0.0,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "masked_softmax_fusion": True,
    "model_type": "bloom",
    "n_embed": 1024,
    "n_inner": None,
    "n_layer": 24,
    "num_attention_heads": 16,
    "offset_alibi": 100,
    "pad_token_id": 3,
    "pretraining_tp": 1,
    "skip_bias_add": True,
    "skip_bias_add_qkv": False,
    "seq_length": 2048,
    "unk_token_id": 0,
    "use_cache": True,
    "vocab_size": 250880,
}


def test_the_hubs_config_is_the_node():
    found = read(HUB)
    assert same_model(found, zoo.config("bloom-560m"))
    assert found.special == {"bos": 1, "eos": 2, "pad": 3}
    assert found.backbone.length == 2048


def test_dropout_is_not_on_the_embeddings():
    backbone = read({**HUB, "hidden_dropout": 0.2}).backbone
    assert (backbone.dropout, backbone.embedding_dropout) == (0.2, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"apply_residual_connection_post_layernorm": True}, "post_layernorm' = True"),
        ({"n_inner": 4096}, "'n_inner' = 4096"),
        ({"hidden_size": 512}, "'hidden_size' = 512, 'n_embed' = 1024"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        read({**HUB, **change})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backbone.embedding_norm=false", "embedding_norm = False"),
        ("backbone.position.max_bias=4", "max_bias = 4.0"),
        ("backbone.position.factor=2", "factor = 2.0"),
        ("backbone.attention.qkv_bias=false", "qkv_bias = False"),
        ("backbone.feedforward.activation=gelu", "activation = 'gelu'"),
        ("backbone.norm.bias=false", "norm.bias = False"),
    ],
)
def test_an_export_refuses_what_it_has_no_word_for(override, message):
    with pytest.raises(ConfigError, match=message):
        formats()["transformers-bloom"].write_config(zoo.config("bloom-560m", override))
