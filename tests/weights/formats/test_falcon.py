"""Falcon's config.json in its three layouts: what hubs hold, and refusals."""

import pytest

import zoo
from tests.weights.formats.decoders import read, same_model
from zoo.errors import ConfigError
from zoo.weights.formats import formats

HUB = {
    "alibi": False,
    "apply_residual_connection_post_layernorm": False,
    "architectures": ["FalconForCausalLM"],
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_falcon.FalconConfig"},
    "bias": False,
    "bos_token_id": 11,
    "eos_token_id": 11,
    "hidden_dropout": 0.0,
    "hidden_size": 4544,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "falcon",
    "multi_query": True,
    "new_decoder_architecture": False,
    "num_attention_heads": 71,
    "num_hidden_layers": 32,
    "parallel_attn": True,
    "vocab_size": 65024,
}
NEW = {
    **HUB,
    "hidden_size": 8192,
    "num_attention_heads": 128,
    "num_kv_heads": 8,
    "num_hidden_layers": 60,
    "new_decoder_architecture": True,
}
RW = {
    **HUB,
    "alibi": True,
    "bias": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_size": 2048,
    "multi_query": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 24,
    "parallel_attn": False,
    "vocab_size": 50304,
}


@pytest.mark.parametrize(
    ("content", "name"), [(HUB, "falcon-7b"), (NEW, "falcon-40b"), (RW, "falcon-rw-1b")]
)
def test_the_hubs_config_is_the_node(content, name):
    assert same_model(read(content), zoo.config(name))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**HUB, "num_ln_in_parallel_attn": 2}, "'num_ln_in_parallel_attn' = 2"),
        ({**NEW, "num_ln_in_parallel_attn": 3}, "'num_ln_in_parallel_attn' = 3"),
        ({**NEW, "parallel_attn": False}, "'parallel_attn' = False"),
        ({**RW, "num_kv_heads": 4}, "'num_kv_heads' = 4"),
        ({**HUB, "apply_residual_connection_post_layernorm": True}, "post_layernorm' = True"),
        ({**HUB, "rope_scaling": {"type": "longrope"}}, "rope_type 'longrope'"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(content, message):
    with pytest.raises(ConfigError, match=message):
        read(content)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("falcon-7b", ["backbone.attention.out_bias=true"], "bias"),
        ("falcon-40b", ["backbone.parallel=false"], "parallel"),
        ("falcon-rw-1b", ["backbone.position.rounding=none"], "rounding = 'none'"),
        ("falcon-rw-1b", ["backbone.position.factor=1"], "factor = 1.0"),
        ("falcon-7b", ["backbone.placement=post"], "placement = 'post'"),
        ("falcon-7b", ["backbone.position=none"], "no word for position 'none'"),
    ],
)
def test_an_export_refuses_what_it_has_no_word_for(name, overrides, message):
    with pytest.raises(ConfigError, match=message):
        formats()["transformers-falcon"].write_config(zoo.config(name, *overrides))
