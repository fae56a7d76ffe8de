"""Tiny models of transformers for every decoder family, and how far outputs are apart."""

# b batch, n tokens, v vocabulary

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path

import pytest
import torch

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


def tokens(batch=2, length=LENGTH, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (batch, length), generator=generator)


def distance(found, expected):
    """The largest difference, in units of the output's scale."""
    return float((found - expected).abs().max() / expected.abs().max())


def rewrite(source: Path, target: Path, change_config=None, change_weights=None) -> Path:
    """Copies a saved folder with its config.json and its tensors changed; returns the copy."""
    from safetensors.torch import load_file, save_file

    content = json.loads((source / "config.json").read_text())
    tensors = load_file(source / "model.safetensors")
    content = change_config(content) if change_config else content
    tensors = change_weights(tensors) if change_weights else tensors
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(content))
    save_file({k: v.contiguous() for k, v in tensors.items()}, target / "model.safetensors")
    return target


def read(content: dict):
    """Returns our typed config of a public config.json."""
    from zoo.registry import resolve
    from zoo.weights.formats import format_for

    chosen = format_for(content)
    return resolve("model", {"kind": chosen.kind, **chosen.read_config(content, frozenset())})


def same_model(ours, theirs) -> bool:
    """Whether two configs mean the same computation."""
    from zoo.weights.formats._text import computation

    return computation(ours) == computation(theirs)
