"""MPT's config.json: options that transformers 5.23 reads and ignores are refused here."""

import pytest

import zoo
from tests.weights.formats.decoders import read, same_model
from zoo.errors import ConfigError
from zoo.weights.formats import formats

HUB = {
    "architectures": ["MPTForCausalLM"],
    "attn_config": {
        "alibi": True,
        "alibi_bias_max": 8,
        "attn_impl": "torch",
        "attn_pdrop": 0,
        "attn_type": "multihead_attention",
        "attn_uses_sequence_id": False,
        "clip_qkv": None,
        "prefix_lm": False,
        "qk_ln": False,
        "softmax_scale": None,
    },
    "auto_map": {"AutoConfig": "configuration_mpt.MPTConfig"},
    "d_model": 4096,
    "emb_pdrop": 0,
    "embedding_fraction": 1.0,
    "expansion_ratio": 4,
    "init_config": {"init_std": None, "name": "kaiming_normal_"},
    "init_device": "cpu",
    "learned_pos_emb": True,
    "logit_scale": None,
    "max_seq_len": 2048,
    "model_type": "mpt",
    "n_heads": 32,
    "n_layers": 32,
    "no_bias": True,
    "norm_type": "low_precision_layernorm",
    "resid_pdrop": 0,
    "tokenizer_name": "EleutherAI/gpt-neox-20b",
    "use_cache": False,
    "verbose": 0,
    "vocab_size": 50432,
}


def changed(**keys):
    return {**HUB, "attn_config": {**HUB["attn_config"], **keys}}


def test_the_hubs_config_is_the_node():
    assert same_model(read(HUB), zoo.config("mpt-7b"))


def test_clip_and_scale_are_read():
    attention = read(changed(clip_qkv=8, softmax_scale=0.5)).backbone.attention
    assert (attention.clip, attention.scale) == (8.0, 0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(prefix_lm=True), "attn_config: 'prefix_lm' = True"),
        (changed(alibi=False), "attn_config: 'alibi' = False"),
        (changed(alibi_bias_max=16), "attn_config: 'alibi_bias_max' = 16"),
        (changed(qk_ln=True), "attn_config: 'qk_ln' = True"),
        (changed(attn_type="multiquery_attention"), "attn_config: 'attn_type' = 'multiquery"),
        (changed(attn_uses_sequence_id=True), "attn_config: 'attn_uses_sequence_id' = True"),
        (changed(rope=True), "attn_config: 'rope'"),
        ({**HUB, "logit_scale": "inv_sqrt_d_model"}, "'logit_scale' = 'inv_sqrt_d_model'"),
        ({**HUB, "expansion_ratio": 2}, "'expansion_ratio' = 2"),
        ({**HUB, "no_bias": False}, "'no_bias' = False"),
        ({**HUB, "norm_type": "rmsnorm"}, "'norm_type' = 'rmsnorm'"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(content, message):
    with pytest.raises(ConfigError, match=message):
        read(content)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backbone.feedforward.hidden=8192", "hidden = 8192"),
        ("backbone.attention.kv_heads=1", "kv_heads = 1"),
        ("backbone.norm.bias=true", "norm.bias = True"),
        ("backbone.position=learned", "position 'learned'"),
    ],
)
def test_an_export_refuses_what_it_has_no_word_for(override, message):
    with pytest.raises(ConfigError, match=message):
        formats()["transformers-mpt"].write_config(zoo.config("mpt-7b", override))
