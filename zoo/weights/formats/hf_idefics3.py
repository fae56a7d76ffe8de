"""transformers' Idefics3 and SmolVLM: a SigLIP tower, squares of patches through one matrix, a
Llama, each as its own family stores it, under a name of its own.

| where     | in a file                                     |
|-----------|-----------------------------------------------|
| tower     | `model.vision_model.`                         |
| adapter   | `model.connector.modality_projection.proj.`   |
| text      | `model.text_model.`, `lm_head.`               |

Pictures are squashed to the tower's square, as the last step of their processors does without
`do_image_splitting` (before it they scale the longest side to a multiple of that, which is not done
here). Nor are large pictures cut into tiles with words between them, of which who loads a folder
that asks for it is warned.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from functools import partial
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats import Format
from zoo.weights.formats._preprocessor import PREPROCESSOR
from zoo.weights.formats._vision_language import SILENT as TEXT_SILENT
from zoo.weights.formats._vision_language import read_text, write_text
from zoo.weights.formats.hf_siglip import FORMAT as SIGLIP
from zoo.weights.formats.keys import Keys
from zoo.weights.formats.llama import weight_map as llama_map
from zoo.weights.map import Rename, WeightMap

IDEFICS, SMOLVLM = "transformers-idefics3", "transformers-smolvlm"
TYPES = {IDEFICS: "idefics3", SMOLVLM: "smolvlm"}
CLASSES = {
    "idefics3": "Idefics3ForConditionalGeneration",
    "smolvlm": "SmolVLMForConditionalGeneration",
}
FAKE, WHOLE = "<fake_token_around_image>", "<global-img>"
# What their classes mean where a file is silent.
TOWER = {
    "hidden_size": 1152,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "attention_dropout": 0.0,
}
# Of the code that trained them: copies of what stands elsewhere, and parts that are switched off.
UNUSED = {
    "max_image_size", "size", "use_base_siglip", "is_llama_config", "perceiver_config",
    "pixel_shuffle_factor", "neftune_noise_alpha", "use_resampler", "transformers.js_config",
    "_flash_attn_2_enabled", "freeze_config", "alpha_initializer", "alphas_initializer_range",
    "alpha_type", "cross_layer_interval", "cross_layer_activation_function",
}  # fmt: skip


def read_config(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns our node of a config.json with `vision_config` and `text_config`."""
    keys = Keys(content)
    keys.ignore_generic()
    kind = keys.take("model_type", "idefics3")
    keys.architecture(CLASSES.get(kind, CLASSES["idefics3"]))
    factor = keys.take("scale_factor", 2)
    tied = keys.take("tie_word_embeddings", False)
    text = _used(keys.take("text_config", {}, dict))
    own = {"rms_norm_eps": 1e-5, **TEXT_SILENT["llama"], **text, "tie_word_embeddings": tied}
    node = {
        "vision": _read_tower(
            _used(keys.take("vision_config", {}, dict)), keys.take(PREPROCESSOR, {}, dict)
        ),
        "adapter": {"kind": "pixel-shuffle", "factor": factor, "depth": 1, "bias": False},
        "text": read_text({**own, "model_type": text.get("model_type", "llama")}),
        "layer": None,
        "image_token": keys.take("image_token_id", 128257),
        "before": [FAKE, WHOLE],
        "after": [FAKE],
    }
    keys.ignore("vocab_size", "image_seq_len", "qk_layer_norms", "_pad_token_id")
    keys.finish(IDEFICS)
    return node


def _used(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in UNUSED}


def _read_tower(content: dict[str, Any], pictures: dict[str, Any]) -> dict[str, Any]:
    """Returns our node of the tower; raises ConfigError for pictures that are no squares."""
    tower = {**TOWER, **content, "model_type": "siglip_vision_model", "vision_use_head": False}
    side = tower["image_size"]
    if isinstance(side, (list, tuple)):
        raise ConfigError("vision_config: 'image_size' must be one number, of a square.")
    if pictures.get("do_image_splitting"):
        warnings.warn(
            "This model was trained on large pictures cut into tiles; here each is shown whole, "
            f"squashed to {side} x {side} (do_image_splitting=False).",
            stacklevel=2,
        )
    tower[PREPROCESSOR] = {
        "size": {"height": side, "width": side},
        "resample": pictures.get("resample", 1),
        "image_mean": pictures.get("image_mean", [0.5] * 3),
        "image_std": pictures.get("image_std", [0.5] * 3),
    }
    tower.pop("architectures", None)
    return {"kind": "vit", **SIGLIP.read_config(tower, ())}


def write_config(config: Any, name: str = IDEFICS) -> dict[str, Any]:
    """Returns config.json and what stands beside it; raises ConfigError for what their classes
    cannot say."""
    adapter, kind = config.adapter, TYPES[name]
    shuffles = adapter.zoo_kind == "pixel-shuffle" and adapter.depth == 1 and adapter.pool == 1
    if not shuffles or adapter.bias or adapter.norm is not None:
        raise ConfigError(f"adapter: format {name!r} holds a pixel-shuffle of one matrix alone.")
    if config.vision.zoo_kind != "vit" or config.vision.class_token:
        raise ConfigError(f"vision: format {name!r} holds a SigLIP tower.")
    for key, wanted in (("layer", None), ("class_token", False), ("tiles", [])):
        if getattr(config, key) != wanted:
            raise ConfigError(f"{key}: format {name!r} has no word for it.")
    if (config.before, config.after) != ([FAKE, WHOLE], [FAKE]) or config.image_token < 0:
        raise ConfigError(f"before: format {name!r} has its own tokens at pictures.")
    tower = SIGLIP.write_config(config.vision)
    pictures = tower.pop(PREPROCESSOR)
    text = write_text(config.text)
    public = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "vision_config": {
            **{key: value for key, value in tower.items() if key in TOWER},
            "model_type": f"{kind}_vision",
        },
        "text_config": text,
        "image_token_id": config.image_token,
        "scale_factor": adapter.factor,
        "tie_word_embeddings": config.text.tied,
    }
    side = config.vision.tokenizer.image[0]
    public[PREPROCESSOR] = {
        **{key: pictures[key] for key in ("image_mean", "image_std", "resample")},
        "image_processor_type": CLASSES[kind].replace("ForConditionalGeneration", "ImageProcessor"),
        "do_image_splitting": False,
        "max_image_size": {"longest_edge": side},
        "size": {"longest_edge": side},
    }
    return public


def weight_map(config: Any) -> WeightMap:
    """Returns the table of a file."""
    projection = "model.connector.modality_projection.proj."
    tower = SIGLIP.weight_map(config.vision).under("model.vision_model.", "vision.")
    text = llama_map(config.text, "model.text_model.").under("", "text.")
    return WeightMap([Rename(projection, "adapter.layers.0.")]) + tower + text


FORMATS = [
    Format(
        name,
        "vision-language",
        read_config,
        partial(write_config, name=name),
        weight_map,
        model_types=(model_type,),
        companions=(PREPROCESSOR,),
    )
    for name, model_type in TYPES.items()
]
