"""Decoder families against transformers: one body of tests, every family and configuration.

Random weights are saved by `save_pretrained`, loaded by `zoo.load("dir:…")`, outputs compared.
"""

# b batch, n tokens, v vocabulary

import copy
import json
from functools import cache

import pytest
import torch

import zoo
from zoo.nn.cache import DynamicCache
from zoo.weights.formats import format_for, formats

transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

VOCABULARY, LENGTH = 97, 23

_GPT = {"n_embd": 33, "n_head": 3, "n_layer": 2, "n_positions": 128}
_LLAMA = {
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "max_position_embeddings": 128,
}
_QWEN = {**_LLAMA, "hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2}
_BLOOM = {"hidden_size": 48, "n_head": 12, "n_layer": 2}
_MPT = {"d_model": 48, "n_heads": 12, "n_layers": 2, "max_seq_len": 128}
_FALCON = {
    "hidden_size": 56,
    "num_attention_heads": 7,
    "num_hidden_layers": 2,
    "max_position_embeddings": 128,
}


def _rope(kind, theta=10000.0, **keys):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **keys}}


# family -> class of its config, configurations by what is odd about them
FAMILIES = {
    "gpt1": (
        "OpenAIGPT",
        {
            "odd heads": _GPT,
            "one head": {**_GPT, "n_head": 1},
            "relu": {**_GPT, "afn": "relu"},
            "silu": {**_GPT, "afn": "silu", "n_layer": 1},
            "untied": {**_GPT, "tie_word_embeddings": False},
            "eps": {**_GPT, "layer_norm_epsilon": 0.1, "n_embd": 48},
        },
    ),
    "gpt2": (
        "GPT2",
        {
            "odd heads": _GPT,
            "inner width": {**_GPT, "n_inner": 50, "layer_norm_epsilon": 0.1},
            "gelu": {**_GPT, "activation_function": "gelu"},
            "quick_gelu": {**_GPT, "activation_function": "quick_gelu"},
            "relu, untied": {
                **_GPT,
                "activation_function": "relu",
                "tie_word_embeddings": False,
            },
            "no scale": {**_GPT, "scale_attn_weights": False},
            "scale by layer": {**_GPT, "scale_attn_by_inverse_layer_idx": True, "n_layer": 3},
            "no scale but by layer": {
                **_GPT,
                "scale_attn_by_inverse_layer_idx": True,
                "scale_attn_weights": False,
            },
            "upcast": {**_GPT, "reorder_and_upcast_attn": True, "n_head": 1},
        },
    ),
    "llama": (
        "Llama",
        {
            "odd heads": _LLAMA,
            "one key head, wide heads": {**_LLAMA, "num_key_value_heads": 1, "head_dim": 16},
            "grouped, tied": {
                **_LLAMA,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "tie_word_embeddings": True,
            },
            "biases": {**_LLAMA, "attention_bias": True, "mlp_bias": True, "rms_norm_eps": 0.1},
            "gelu": {**_LLAMA, "hidden_act": "gelu", "head_dim": 6},
            "theta": {**_LLAMA, **_rope("default", 500000.0)},
            "linear": {**_LLAMA, **_rope("linear", factor=4.0)},
            "dynamic": {
                **_LLAMA,
                **_rope("dynamic", factor=3.0),
                "max_position_embeddings": 16,
            },
            "llama3": {
                **_LLAMA,
                **_rope(
                    "llama3",
                    factor=8.0,
                    low_freq_factor=1.0,
                    high_freq_factor=4.0,
                    original_max_position_embeddings=16,
                ),
            },
            "yarn": {
                **_LLAMA,
                **_rope("yarn", factor=8.0, original_max_position_embeddings=16),
            },
            "yarn of DeepSeek": {
                **_LLAMA,
                **_rope(
                    "yarn",
                    factor=4.0,
                    original_max_position_embeddings=32,
                    mscale=1.0,
                    mscale_all_dim=0.8,
                    beta_fast=16.0,
                ),
            },
        },
    ),
    "mistral": (
        "Mistral",
        {
            "window": {**_LLAMA, "sliding_window": 5},
            "window of one": {**_LLAMA, "sliding_window": 1},
            "no window": {**_LLAMA, "sliding_window": None},
            "grouped, wide heads": {**_QWEN, "sliding_window": 7, "head_dim": 10},
            "one key head": {**_LLAMA, "num_key_value_heads": 1, "sliding_window": 3},
            "tied": {**_LLAMA, "sliding_window": 5, "tie_word_embeddings": True},
        },
    ),
    "qwen2": (
        "Qwen2",
        {
            "grouped": _QWEN,
            "tied": {**_QWEN, "tie_word_embeddings": True},
            "odd heads": {**_LLAMA, "num_key_value_heads": 1},
            "upper layers have windows": {
                **_QWEN,
                "num_hidden_layers": 3,
                "use_sliding_window": True,
                "sliding_window": 4,
                "max_window_layers": 1,
            },
            "all layers have windows": {
                **_QWEN,
                "use_sliding_window": True,
                "sliding_window": 6,
                "max_window_layers": 0,
            },
            "alternating": {
                **_QWEN,
                "num_hidden_layers": 4,
                "use_sliding_window": True,
                "sliding_window": 4,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
            },
            "yarn": {
                **_QWEN,
                **_rope("yarn", 1e6, factor=4.0, original_max_position_embeddings=32),
            },
        },
    ),
    "qwen3": (
        "Qwen3",
        {
            "wide heads": {**_QWEN, "head_dim": 16},
            "tied": {**_QWEN, "head_dim": 8, "tie_word_embeddings": True},
            "odd heads, one key head": {**_LLAMA, "num_key_value_heads": 1, "head_dim": 12},
            "biases": {**_QWEN, "head_dim": 10, "attention_bias": True},
            "upper layers have windows": {
                **_QWEN,
                "head_dim": 8,
                "use_sliding_window": True,
                "sliding_window": 4,
                "max_window_layers": 1,
            },
            "eps": {**_QWEN, "head_dim": 8, "rms_norm_eps": 0.1, **_rope("default", 1e6)},
        },
    ),
    "bloom": (
        "Bloom",
        {
            "12 heads": _BLOOM,
            "odd heads": {**_BLOOM, "hidden_size": 35, "n_head": 7},
            "112 heads": {**_BLOOM, "hidden_size": 224, "n_head": 112, "n_layer": 1},
            "one head": {**_BLOOM, "n_head": 1},
            "untied": {**_BLOOM, "n_head": 8, "tie_word_embeddings": False},
            "eps": {**_BLOOM, "layer_norm_epsilon": 0.1, "n_layer": 3},
        },
    ),
    "mpt": (
        "Mpt",
        {
            "12 heads": _MPT,
            "odd heads": {**_MPT, "d_model": 35, "n_heads": 7},
            "112 heads": {**_MPT, "d_model": 224, "n_heads": 112, "n_layers": 1},
            "clip": {**_MPT, "attn_config": {"clip_qkv": 0.5}},
            "scale": {**_MPT, "attn_config": {"softmax_scale": 0.3}, "n_heads": 8},
            "untied": {**_MPT, "tie_word_embeddings": False, "layer_norm_epsilon": 0.1},
        },
    ),
    "gpt_bigcode": (
        "GPTBigCode",
        {
            "one key head": _GPT,
            "as many key heads": {**_GPT, "multi_query": False},
            "wide": {**_GPT, "n_embd": 40, "n_head": 5, "n_inner": 50},
            "relu, untied": {
                **_GPT,
                "activation_function": "relu",
                "tie_word_embeddings": False,
            },
            "no scale": {**_GPT, "scale_attn_weights": False, "attention_softmax_in_fp32": False},
            "eps": {**_GPT, "layer_norm_epsilon": 0.1, "n_layer": 1, "n_head": 1},
        },
    ),
    "falcon": (
        "Falcon",
        {
            "7b": _FALCON,
            "40b": {
                **_FALCON,
                "hidden_size": 64,
                "num_attention_heads": 8,
                "new_decoder_architecture": True,
                "num_kv_heads": 2,
            },
            "11b": {
                **_FALCON,
                "new_decoder_architecture": True,
                "num_kv_heads": 7,
                "num_ln_in_parallel_attn": 1,
            },
            "biases": {**_FALCON, "bias": True, "ffn_hidden_size": 60, "activation": "relu"},
            "in sequence": {**_FALCON, "parallel_attn": False, "tie_word_embeddings": False},
            "as many key heads": {**_FALCON, "multi_query": False, **_rope("default", 500.0)},
            "rw": {
                **_FALCON,
                "alibi": True,
                "multi_query": False,
                "parallel_attn": False,
                "bias": True,
            },
            "linear": {**_FALCON, **_rope("linear", factor=4.0)},
        },
    ),
}
CASES = [(family, odd) for family, (_, cases) in FAMILIES.items() for odd in cases]
FIRST = [(family, next(iter(cases))) for family, (_, cases) in FAMILIES.items()]
every_case = pytest.mark.parametrize(("family", "odd"), CASES, ids=[f"{f}, {o}" for f, o in CASES])
every_family = pytest.mark.parametrize(("family", "odd"), FIRST, ids=[f for f, _ in FIRST])

TOLERANCE = 1e-5


def reference(family, odd):
    """The model of transformers; a fresh one where it remembers the longest text it has seen."""
    model = _reference(family, odd)
    return copy.deepcopy(model) if odd == "dynamic" else model


@cache
def _reference(family, odd):
    """A tiny model of transformers with weights that make every part matter."""
    name, cases = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(
        vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, pad_token_id=0, **cases[odd]
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(len(odd))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                norm = "norm" in key or "ln_" in key
                parameter.copy_(0.3 * noise + (1.0 if norm and key.endswith("weight") else 0.0))
            elif "emb" in key or "wte" in key or "wpe" in key:
                parameter.copy_(noise * 0.5)
            else:
                parameter.copy_(noise * 1.2 / max(parameter.shape) ** 0.5)
    return model


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Returns the folder that transformers saved a case to."""

    @cache
    def saved(family, odd):
        path = tmp_path_factory.mktemp("saved")
        reference(family, odd).save_pretrained(path)
        return path

    return saved


@pytest.fixture(scope="session")
def ours(folder):
    return cache(lambda family, odd: zoo.load(f"dir:{folder(family, odd)}"))


def tokens(batch=2, length=LENGTH, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (batch, length), generator=generator)


def distance(found, expected):
    """The largest difference, in units of the output's scale."""
    return float((found - expected).abs().max() / expected.abs().max())


@every_case
@torch.no_grad()
def test_logits(family, odd, ours):
    text = tokens()
    expected = reference(family, odd)(text).logits
    assert expected.std() > 0.1, "weights so small that little would show"
    assert distance(ours(family, odd)(text).logits, expected) <= TOLERANCE


PADDINGS = {
    "left": [[0] * 9 + [1] * 14, [1] * 23],
    "right": [[1] * 14 + [0] * 9, [1] * 23],
    "both": [[0] * 4 + [1] * 14 + [0] * 5, [0] * 1 + [1] * 22],
}


@every_case
@pytest.mark.parametrize("side", PADDINGS)
@torch.no_grad()
def test_padding(family, odd, side, ours):
    text, mask = tokens(), torch.tensor(PADDINGS[side])
    found = ours(family, odd)(text, mask).logits
    for row, real in zip(range(2), mask.bool()):
        alone = ours(family, odd)(text[row : row + 1, real]).logits[0]
        assert distance(found[row, real], alone) <= TOLERANCE
    if odd == "dynamic":
        return  # the reference stretches all texts of a batch as the longest one needs it
    keys = {"attention_mask": mask}
    if family not in ("bloom", "mpt"):  # these look at the mask; the others must be told
        keys["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    expected = reference(family, odd)(text, **keys).logits
    assert distance(found[mask.bool()], expected[mask.bool()]) <= TOLERANCE


@every_case
@torch.no_grad()
def test_cache(family, odd, ours):
    """Prefill, then 32 steps, with and without left padding."""
    model, text = ours(family, odd), tokens(length=40)
    for mask in (None, torch.tensor([[0] * 5 + [1] * 35, [1] * 40])):
        cache, parts, past = DynamicCache(), [], 0
        for part in text.split([8] + [1] * 32, 1):
            past += part.shape[1]
            seen = None if mask is None else mask[:, :past]
            parts.append(model(part, seen, cache=cache).logits)
        found = torch.cat(parts, 1)
        assert cache.length == 40
        if odd == "dynamic":  # keys stay turned as they were, so it differs from recomputation
            expected = _stepped(reference(family, odd), text, mask)
            if mask is not None:
                continue  # and the reference takes one length for all texts
        else:
            expected = model(text, mask).logits
        real = torch.ones_like(text).bool() if mask is None else mask.bool()
        assert distance(found[real], expected[real]) <= TOLERANCE


def _stepped(model, text, mask):
    past, parts = transformers.DynamicCache(config=model.config), []
    for part in text.split([8] + [1] * 32, 1):
        parts.append(model(part, past_key_values=past).logits)
    return torch.cat(parts, 1)


@every_case
@torch.no_grad()
def test_bf16(family, odd, folder):
    text = tokens()
    exact = reference(family, odd)(text).logits
    model = zoo.load(f"dir:{folder(family, odd)}", dtype="bf16")
    found = model(text).logits
    assert found.dtype == torch.bfloat16
    relative = float((found.float() - exact).norm() / exact.norm())
    assert relative <= 2e-2


@every_family
@torch.no_grad()
def test_greedy(family, odd, ours):
    """64 tokens with a cache are those that transformers generates."""
    model, text = ours(family, odd), tokens(batch=1, length=9, seed=1)
    expected = reference(family, odd).generate(
        text, max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    cache, found, part = DynamicCache(), text, text
    for _ in range(64):
        part = model(part, cache=cache, last=True).logits[:, -1:].argmax(-1)
        found = torch.cat([found, part], 1)
    assert found.tolist() == expected.tolist()


@every_case
@torch.no_grad()
def test_export(family, odd, ours, folder, tmp_path):
    """What is written for transformers holds the same bits and computes the same."""
    from safetensors.torch import load_file

    saved, model = folder(family, odd), ours(family, odd)
    content = json.loads((saved / "config.json").read_text())
    zoo.save(model, tmp_path, format=format_for(content).name)
    theirs, written = (
        load_file(saved / "model.safetensors"),
        load_file(tmp_path / "model.safetensors"),
    )
    assert theirs.keys() == written.keys()
    assert all(torch.equal(theirs[key], written[key]) for key in theirs)
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    text = tokens()
    assert distance(back(text).logits, reference(family, odd)(text).logits) <= 1e-6
    # and it means the same to us
    again = zoo.load(f"dir:{tmp_path}")
    assert torch.equal(again(text).logits, model(text).logits)


@every_case
def test_native_folder(family, odd, ours, tmp_path):
    """Our own layout gives the same model again, config and bits."""
    model = ours(family, odd)
    zoo.save(model, tmp_path)
    again = zoo.load(f"dir:{tmp_path}")
    assert again.config == model.config
    state, kept = model.state_dict(), again.state_dict()
    assert state.keys() == kept.keys() and all(torch.equal(state[k], kept[k]) for k in state)


@every_family
def test_an_unknown_key_is_refused_by_name(family, odd, folder):
    content = json.loads((folder(family, odd) / "config.json").read_text())
    chosen = format_for(content)
    with pytest.raises(zoo.errors.ConfigError, match="'attention_sinks'"):
        chosen.read_config({**content, "attention_sinks": 4}, frozenset())
    with pytest.raises(zoo.errors.ConfigError, match="'quantization_config'"):
        chosen.read_config({**content, "quantization_config": {"bits": 4}}, frozenset())
    with pytest.raises(zoo.errors.ConfigError, match="'vocab_size'"):
        chosen.read_config({**content, "vocab_size": "many"}, frozenset())
    del content["vocab_size"]
    with pytest.raises(zoo.errors.ConfigError, match="'vocab_size' is missing"):
        chosen.read_config(content, frozenset())


def test_formats_are_found_by_name():
    assert {
        "transformers-gpt1",
        "transformers-gpt2",
        "transformers-gpt-bigcode",
        "transformers-llama",
        "transformers-bloom",
        "transformers-mpt",
        "transformers-falcon",
        "meta-llama",
    } <= set(formats())
