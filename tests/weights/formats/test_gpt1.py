"""GPT-1's config.json: what the hub holds, what is refused, what an export cannot say."""

import pytest

import zoo
from tests.weights.formats.decoders import read, same_model
from zoo.errors import ConfigError
from zoo.weights.formats import formats

HUB = {
    "afn": "gelu",
    "architectures": ["OpenAIGPTLMHeadModel"],
    "attn_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "openai-gpt",
    "n_ctx": 512,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 512,
    "n_special": 0,
    "predict_special_tokens": True,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 40478,
}


def test_the_hubs_config_is_the_node():
    assert same_model(read(HUB), zoo.config("gpt1"))


def test_its_gelu_is_the_approximation():
    assert read(HUB).backbone.feedforward.activation == "gelu_tanh"
    assert read({**HUB, "afn": "swish"}).backbone.feedforward.activation == "silu"


@pytest.mark.parametrize(
    ("change", "message"),
    [({"afn": "mish"}, "'afn' = 'mish'"), ({"n_special": 3}, "'n_special' = 3")],
)
def test_what_is_not_implemented_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        read({**HUB, **change})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backbone.feedforward.activation=gelu", "activation = 'gelu'"),
        ("backbone.feedforward.hidden=100", "hidden = 100"),
        ("backbone.placement=pre", "placement = 'pre'"),
        ("backbone.final_norm=true", "final_norm = True"),
    ],
)
def test_an_export_refuses_what_it_has_no_word_for(override, message):
    with pytest.raises(ConfigError, match=message):
        formats()["transformers-gpt1"].write_config(zoo.config("gpt1", override))
