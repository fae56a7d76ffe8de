"""GPTBigCode's config.json: what hubs hold, what is refused, what an export cannot say."""

import pytest

import zoo
from tests.weights.formats.decoders import read, same_model
from zoo.errors import ConfigError
from zoo.weights.formats import formats

HUB = {
    "activation_function": "gelu_pytorch_tanh",
    "architectures": ["GPTBigCodeForCausalLM"],
    "attention_softmax_in_fp32": True,
    "attn_pdrop": 0.1,
    "bos_token_id": 0,
    "embd_pdrop": 0.1,
    "eos_token_id": 0,
    "inference_runner": 0,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "max_batch_size": None,
    "max_sequence_length": None,
    "model_type": "gpt_bigcode",
    "multi_query": True,
    "n_embd": 2048,
    "n_head": 16,
    "n_inner": 8192,
    "n_layer": 24,
    "n_positions": 8192,
    "pad_key_length": True,
    "pre_allocate_kv_cache": False,
    "resid_pdrop": 0.1,
    "scale_attention_softmax_in_fp32": True,
    "scale_attn_weights": True,
    "summary_use_proj": True,
    "validate_runner_input": True,
    "vocab_size": 49152,
}


def test_the_hubs_config_is_the_node():
    assert same_model(read(HUB), zoo.config("starcoderbase-1b"))
    santa = {**HUB, "n_positions": 2048, "vocab_size": 49280}
    assert same_model(read(santa), zoo.config("santacoder"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_key_value_heads": 4}, "'num_key_value_heads' = 4"),
        ({"add_cross_attention": True}, "'add_cross_attention' = True"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        read({**HUB, **change})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backbone.attention.kv_heads=4", "kv_heads = 4"),
        ("backbone.attention.scale=0.3", "scale = 0.3"),
        ("backbone.attention.qkv_bias=false", "qkv_bias = False"),
    ],
)
def test_an_export_refuses_what_it_has_no_word_for(override, message):
    with pytest.raises(ConfigError, match=message):
        config = zoo.config("starcoderbase-1b", override)
        formats()["transformers-gpt-bigcode"].write_config(config)
