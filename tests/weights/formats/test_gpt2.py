"""GPT-2's config.json: what hubs hold, what is refused, what an export cannot say."""

import pytest

import zoo
from tests.weights.formats.decoders import read, same_model
from zoo.errors import ConfigError
from zoo.weights.formats import formats

HUB = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}
SIZES = {"gpt2-medium": (24, 1024, 16), "gpt2-large": (36, 1280, 20), "gpt2-xl": (48, 1600, 25)}


def test_the_hubs_config_is_the_node():
    found = read(HUB)
    assert same_model(found, zoo.config("gpt2"))
    assert found.special == {"bos": 50256, "eos": 50256}
    assert found.backbone.dropout == found.backbone.attention.dropout == 0.1
    for name, (depth, width, heads) in SIZES.items():
        content = {**HUB, "n_layer": depth, "n_embd": width, "n_head": heads}
        assert same_model(read(content), zoo.config(name))


def test_dropout_of_the_embeddings_is_kept_apart():
    found = read({**HUB, "embd_pdrop": 0.3, "resid_pdrop": 0.2, "attn_pdrop": 0.4}).backbone
    assert (found.dropout, found.embedding_dropout, found.attention.dropout) == (0.2, 0.3, 0.4)
    public = formats()["transformers-gpt2"].write_config(zoo.config("gpt2", "backbone.dropout=0"))
    assert (public["resid_pdrop"], public["embd_pdrop"], public["attn_pdrop"]) == (0, 0, 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"add_cross_attention": True}, "'add_cross_attention' = True"),
        ({"activation_function": "mish"}, "'activation_function' names an unknown.*'mish'"),
        ({"pruned_heads": {"0": [1]}}, "'pruned_heads'"),
        ({"n_embd": 768.5}, "'n_embd' must be int"),
        ({"num_attention_heads": 16}, r"'n_head' = 12, 'num_attention_heads' = 16 should be one"),
        ({"eos_token_id": "end"}, "'eos_token_id'"),
        ({"eos_token_id": [1, "end"]}, "'eos_token_id' must be whole numbers"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        read({**HUB, **change})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backbone.position=rope", "no word for position 'rope'"),
        ("backbone.position=none", "no word for position 'none'"),
        ("backbone.norm=rms", "no word for norm 'rms'"),
        ("backbone.feedforward=swiglu", "no word for feedforward 'gated'"),
        ("backbone.attention.kv_heads=1", r"no word for backbone.blocks.0.attention.kv_heads = 1"),
        ("backbone.attention.head_dim=32", r"no word for backbone.blocks.0.attention.head_dim"),
        ("backbone.attention.window=64", r"no word for backbone.blocks.0.attention.window = 64"),
        ("backbone.attention.scale=0.7", r"no word for backbone.blocks.0.attention.scale = 0.7"),
        ("backbone.attention.qk_norm=rms", r"no word for backbone.blocks.0.attention.qk_norm"),
        ("backbone.placement=post", r"no word for backbone.blocks.0.placement"),
        ("backbone.embedding_norm=true", r"no word for backbone.embedding_norm = True"),
        ("backbone.position.offset=2", r"no word for backbone.position.0.offset = 2"),
        ("head_bias=true", "no word for head_bias = True"),
        ("scale_embedding=true", "no word for scale_embedding = True"),
        ("prefix_lm=true", "no word for prefix_lm = True"),
    ],
)
def test_an_export_refuses_what_it_has_no_word_for(override, message):
    with pytest.raises(ConfigError, match=message):
        formats()["transformers-gpt2"].write_config(zoo.config("gpt2", override))


def test_what_changes_nothing_may_be_exported():
    for override in ("backbone.attention.kernel=plain", "backbone.checkpoint=true"):
        config = zoo.config("gpt2", override, "backbone.attention.scale=0.125")
        public = formats()["transformers-gpt2"].write_config(config)
        assert public["n_embd"] == 768


def test_a_load_turns_no_weight_over(ours):
    """Conv1D weights stay views of the file: copies cost more than all the rest of a load."""
    layer = ours("gpt2", "odd heads").backbone.layers[0]
    for linear in (layer.attention.qkv, layer.attention.out, layer.feedforward.up):
        assert linear.weight.stride() == (1, linear.weight.shape[0])
