"""What the layouts of LLaVA share: they hold a tower and a language model, each as its own family
stores it."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats._preprocessor import PREPROCESSOR, write_preprocessor
from zoo.weights.formats.keys import show
from zoo.weights.map import Rename, Rule, WeightMap

__all__ = [
    "projector_rows",
    "read_text",
    "read_tower",
    "text_map",
    "tower_map",
    "write_pictures",
    "write_text",
    "write_tower",
]

TOWERS = {"clip_vision_model": "hf_clip", "siglip_vision_model": "hf_siglip"}
# What transformers' classes mean where a file is silent: hub files say only what differs.
SILENT = {
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "mistral": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
}


def _format(module: str) -> Any:
    return importlib.import_module(f"zoo.weights.formats.{module}").FORMAT


# -- the vision tower ------------------------------------------------------------------------------


def read_tower(content: dict[str, Any], pictures: dict[str, Any]) -> dict[str, Any]:
    """Returns our node of a `vision_config` and a preprocessor_config.json."""
    kind = content.get("model_type", "clip_vision_model")
    if kind not in TOWERS:
        raise ConfigError(
            f"config.json: a vision tower of type {show(kind)} is not implemented here, only "
            f"{', '.join(TOWERS)}."
        )
    content = {k: v for k, v in content.items() if k != "vocab_size"}  # of CLIP's other half
    pads = pictures.get("do_pad") and str(pictures.get("image_processor_type")).startswith("LlavaI")
    plain = {k: v for k, v in pictures.items() if k not in ("do_pad", "image_grid_pinpoints")}
    node = _format(TOWERS[kind]).read_config({**content, PREPROCESSOR: plain}, ())
    if pads:
        node["tokenizer"]["resize"] = "pad"
    return {"kind": "vit", **node}


def _tower(vision: Any) -> Any:
    """Returns the format of a tower of ours; raises ConfigError for one that LLaVA's layouts do not
    hold."""
    if vision.zoo_kind != "vit":
        raise ConfigError(f"vision: LLaVA's layouts hold no {vision.zoo_kind!r} tower.")
    return _format("hf_clip" if vision.class_token else "hf_siglip")


def write_tower(vision: Any) -> dict[str, Any]:
    """Returns the `vision_config` of a tower, without the preprocessor's keys."""
    tokenizer = vision.tokenizer
    if vision.projection or vision.classes:
        key = "projection" if vision.projection else "classes"
        raise ConfigError(f"vision.{key}: LLaVA's layouts hold towers without a head.")
    if tokenizer.resize == "pad":
        tokenizer = dataclasses.replace(tokenizer, resize="squash")
    public = _tower(vision).write_config(dataclasses.replace(vision, tokenizer=tokenizer))
    return {key: value for key, value in public.items() if key != PREPROCESSOR}


def write_pictures(config: Any) -> dict[str, Any]:
    """Returns preprocessor_config.json."""
    tokenizer = config.vision.tokenizer
    processor = "CLIPImageProcessor" if config.vision.class_token else "SiglipImageProcessor"
    if tokenizer.resize != "pad" and not config.tiles:
        return write_preprocessor(tokenizer, processor)
    square = dataclasses.replace(tokenizer, resize="shortest")
    if config.tiles:
        sizes = {"image_grid_pinpoints": config.tiles}
        return {**write_preprocessor(square, "LlavaNextImageProcessor"), **sizes, "do_pad": True}
    return {**write_preprocessor(square, "LlavaImageProcessor"), "do_pad": True}


def tower_map(vision: Any, prefix: str) -> WeightMap:
    """Returns the table of the tower under a prefix; files may leave out its `vision_model.`."""
    inner = _tower(vision).weight_map(vision).under("vision_model.", "")
    return WeightMap(inner.rules, prefixes=["vision_model."]).under(prefix, "vision.")


# -- the language model ----------------------------------------------------------------------------


def read_text(content: dict[str, Any]) -> dict[str, Any]:
    """Returns our node of a language model's keys."""
    kind, llama = content.get("model_type", "llama"), _format("llama")
    if kind not in llama.model_types:
        raise ConfigError(
            f"config.json: a language model of type {show(kind)} is not implemented here, only "
            f"{', '.join(llama.model_types)}."
        )
    node = llama.read_config({"model_type": kind, **SILENT.get(kind, {}), **content}, ())
    return {"kind": "causal-lm", **node}


def write_text(text: Any) -> dict[str, Any]:
    """Returns the language model's keys; raises ConfigError for one that is no Llama."""
    return _format("llama").write_config(text)


def text_map(text: Any, prefix: str) -> WeightMap:
    """Returns the table of the language model under a prefix."""
    return _format("llama").weight_map(text).under(prefix, "text.")


# -- between them ----------------------------------------------------------------------------------


def projector_rows(theirs: list[str]) -> list[Rule]:
    """Returns the rows of an MLP adapter whose matrices have these public prefixes."""
    return [Rename(name, f"adapter.layers.{i}.") for i, name in enumerate(theirs)]
