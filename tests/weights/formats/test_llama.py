"""config.json of Llama and its relatives: hubs' keys of transformers 4 and 5, windows, refusals."""

import pytest

import zoo
from tests.weights.formats.decoders import read, same_model
from zoo.errors import ConfigError
from zoo.weights.formats import formats

LLAMA_2 = {
    "_name_or_path": "meta-llama/Llama-2-7b-hf",
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.31.0.dev0",
    "use_cache": True,
    "vocab_size": 32000,
}
LLAMA_3_2 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}
MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 131072,
    "max_window_layers": 24,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
HUB = {
    "llama-2-7b": LLAMA_2,
    "vicuna-7b-v1.5": {**LLAMA_2, "pad_token_id": 0},
    "llama-3.2-1b": LLAMA_3_2,
    "smollm2-135m": SMOLLM2,
    "mistral-7b": MISTRAL,
    "qwen2-0.5b": QWEN2,
    "qwen3-0.6b": QWEN3,
}


def write(config):
    return formats()["transformers-llama"].write_config(config)


@pytest.mark.parametrize("name", HUB)
def test_the_hubs_config_is_the_node(name):
    assert same_model(read(HUB[name]), zoo.config(name))


def test_several_ends_of_a_text_are_kept_and_written_back():
    found = read(LLAMA_3_2)
    assert found.special == {"bos": 128000, "eos": 128001, "eos_2": 128008, "eos_3": 128009}
    public = write(found)
    assert public["eos_token_id"] == [128001, 128008, 128009]
    assert public["bos_token_id"] == 128000 and public["pad_token_id"] is None
    assert "pad" not in read({**LLAMA_2, "pad_token_id": -1}).special


# -- rotary positions ------------------------------------------------------------------------------

STRETCHED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_theta": 5e5, "rope_scaling": {**STRETCHED, "original_max_position_embeddings": 99}},
        {
            "rope_theta": 5e5,
            "rope_scaling": {
                **{("type" if k == "rope_type" else k): v for k, v in STRETCHED.items()},
                "original_max_position_embeddings": 99,
            },
        },
        {
            "rope_parameters": {
                **STRETCHED,
                "rope_theta": 500000,
                "original_max_position_embeddings": 99,
            }
        },
        {
            "rope_theta": 5e5,
            "rope_scaling": STRETCHED,
            "original_max_position_embeddings": 99,
        },
    ],
    ids=["transformers 4", "its first form", "transformers 5", "length outside"],
)
def test_every_spelling_of_rotary_positions_is_read(keys):
    (found,) = read({**LLAMA_2, **keys}).backbone.position
    assert (found.theta, found.scaling, found.factor) == (5e5, "llama3", 8.0)
    assert found.original_length == 99


def test_an_export_speaks_to_transformers_4_and_5():
    public = write(read(LLAMA_3_2))
    scaling = LLAMA_3_2["rope_scaling"]
    assert public["rope_theta"] == 500000.0 and public["rope_scaling"] == scaling
    assert public["rope_parameters"] == {**scaling, "rope_theta": 500000.0}
    assert write(read(LLAMA_2))["rope_scaling"] is None


def test_the_length_of_training_defaults_to_the_context():
    scaling = {"rope_type": "yarn", "factor": 4.0}
    (found,) = read({**LLAMA_2, "rope_scaling": scaling}).backbone.position
    assert found.original_length == 4096
    (found,) = read(
        {
            **LLAMA_2,
            "rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 1024},
        }
    ).backbone.position
    assert found.factor == 4.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_type 'longrope'"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [1, 2]}}, "rope_type 'mrope'"),
        ({"rope_parameters": {"rope_type": "proportional"}}, "rope_type 'proportional'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling: 'factor' is missing"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "'low_freq_factor' is missing"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta": 1}}, "'beta'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}, "'truncate'"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "'partial_rotary_factor' = 0.5"),
        ({"partial_rotary_factor": 0.5}, "'partial_rotary_factor' = 0.5"),
        ({"rope_interleaved": True}, "'rope_interleaved' = True"),
        ({"sliding_window": 128}, "'sliding_window' = 128"),
        ({"hidden_act": "xielu"}, "'hidden_act' names an unknown"),
        ({"attention_bias": "yes"}, "'attention_bias' must be bool"),
        ({"num_key_value_heads": 5}, "32 query heads cannot share 5"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        read({**LLAMA_2, **change})


@pytest.mark.parametrize("content", [MISTRAL, QWEN2], ids=["mistral", "qwen2"])
def test_relatives_refuse_keys_that_their_classes_do_not_read(content):
    for key in ("mlp_bias", "attention_bias"):
        if content is MISTRAL or key == "mlp_bias":
            with pytest.raises(ConfigError, match=f"'{key}'"):
                read({**content, key: True})


# -- windows and biases: which of the four types says it -------------------------------------------


def test_a_silent_file_means_what_its_class_means():
    for content, window, kv_heads in ((MISTRAL, 4096, 8), (QWEN2, None, 32)):
        silent = ("sliding_window", "num_key_value_heads")
        content = {k: v for k, v in content.items() if k not in silent}
        content = {**content, "hidden_size": 2048, "num_attention_heads": 32}
        attention = read(content).backbone.attention
        assert (attention.window, attention.kv_heads) == (window, kv_heads)
    assert read({**MISTRAL, "sliding_window": None}).backbone.attention.window is None
    assert read({**MISTRAL, "num_key_value_heads": None}).backbone.attention.kv_heads == 32
    assert read({**QWEN3, "head_dim": None}).backbone.attention.head_dim == 128


def test_windows_by_layer():
    content = {**QWEN2, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 20}
    backbone = read(content).backbone
    windows = [backbone.block(i).attention.window for i in range(24)]
    assert windows == [None] * 20 + [8] * 4
    types = ["sliding_attention"] * 3 + ["full_attention"] * 21
    backbone = read({**content, "layer_types": types}).backbone
    assert [backbone.block(i).attention.window for i in range(24)] == [8] * 3 + [None] * 21
    for wrong in (types[:5], ["chunked_attention"] * 24):
        with pytest.raises(ConfigError, match="'layer_types'"):
            read({**content, "layer_types": wrong})


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((), "llama"),
        (("backbone.attention.window=16",), "mistral"),
        (("backbone.attention.qkv_bias=true",), "qwen2"),
        (("backbone.attention.qkv_bias=true", "backbone.attention.out_bias=true"), "llama"),
        (("backbone.attention.qk_norm={name: rms, eps: 1e-5}",), "qwen3"),
    ],
)
def test_the_export_takes_the_type_that_can_say_it(overrides, said):
    config = zoo.config("llama-2-7b", *overrides)
    public = write(config)
    assert public["model_type"] == said
    assert same_model(read(public), config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone.position=alibi"], "no word for position 'alibi'"),
        (["backbone.position.fraction=0.5"], "fraction = 0.5"),
        (["backbone.feedforward=mlp"], "no word for feedforward 'mlp'"),
        (["backbone.norm=layer"], "no word for norm 'layer'"),
        (["backbone.attention.out_bias=true"], "bias"),
        (["backbone.attention.qk_norm=layer"], "qk_norm"),
        (["backbone.attention.qk_norm={name: rms, eps: 0.1}"], "qk_norm.eps = 0.1"),
        (["backbone.attention.window=8", "backbone.feedforward.bias=true"], "feedforward.bias"),
        (["backbone.layers=[{}, {feedforward: {hidden: 64}}]"], "blocks.1.feedforward.hidden"),
        (["backbone.parallel=true"], "parallel = True"),
    ],
)
def test_an_export_refuses_what_none_of_them_can_say(overrides, message):
    with pytest.raises(ConfigError, match=message):
        write(zoo.config("llama-2-7b", *overrides))
