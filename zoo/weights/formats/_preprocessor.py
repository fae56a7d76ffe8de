"""transformers' preprocessor_config.json: how raw pictures become pixels, both ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from zoo.errors import ConfigError
from zoo.weights.formats.keys import Keys, show

__all__ = ["PREPROCESSOR", "read_preprocessor", "whole", "write_preprocessor"]

PREPROCESSOR = "preprocessor_config.json"
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def read_preprocessor(content: Mapping[str, Any], image: list[int]) -> dict[str, Any]:
    """Returns the tokenizer's keys of transformers' preprocessor_config.json.

    Without one (empty `content`), pictures are squashed to the model's size, to values in -1..1.
    """
    if not content:
        return {"resize": "squash", "interpolation": "bilinear"}
    keys = Keys(content, PREPROCESSOR)
    keys.ignore(
        "image_processor_type", "feature_extractor_type", "processor_class", "do_convert_rgb",
        "_valid_processor_keys", "_processor_class", "data_format", "input_data_format",
        "default_to_square", "device", "disable_grouping", "return_tensors", "do_pad", "pad_size",
        "image_seq_length", "backend", "use_square_size",
    )  # fmt: skip
    for key in ("do_resize", "do_rescale"):
        keys.only(key, True, None)
    factor = keys.take("rescale_factor", 1 / 255)
    if not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise ConfigError(f"{PREPROCESSOR}: 'rescale_factor' must be 1/255, got {factor}.")
    size = _read_size(keys, "size", image)
    final = _read_size(keys, "crop_size", [0, 0])[1]
    crops = keys.take("do_center_crop", False) and final != [0, 0]
    interpolation = RESAMPLE.get(keys.take("resample", 2))
    if interpolation is None:
        raise ConfigError(f"{PREPROCESSOR}: 'resample' is none of {sorted(RESAMPLE)}.")
    normalised = keys.take("do_normalize", True)
    mean, std = keys.take("image_mean", [0.5] * 3), keys.take("image_std", [0.5] * 3)
    keys.finish("transformers")
    how, scaled = size
    wanted = final if crops else scaled
    if how == "shortest" and (not crops or final[0] != final[1]):
        raise ConfigError(f"{PREPROCESSOR}: 'shortest_edge' needs a square 'crop_size'.")
    return {
        "size": None if wanted == image else wanted,
        "resize": how,
        "crop": _crop_share(wanted, scaled),
        "crop_offset": "floor" if crops else "round",
        "interpolation": interpolation,
        "mean": mean if normalised else [0.0] * len(mean),
        "std": std if normalised else [1.0] * len(std),
    }


def _read_size(keys: Keys, key: str, default: list[int]) -> tuple[str, list[int]]:
    """Returns (how pictures are resized, (height, width)) of one of the forms of a size."""
    value = keys.take(key, None, int, dict, list)
    if value is None:
        return "squash", default
    if isinstance(value, int):  # how files of before 2022 write a size
        return "shortest" if key == "size" and _shortest(keys.content) else "squash", [value] * 2
    if isinstance(value, dict) and set(value) == {"shortest_edge"}:
        return "shortest", [value["shortest_edge"]] * 2
    if isinstance(value, dict) and set(value) == {"height", "width"}:
        return "squash", [value["height"], value["width"]]
    raise ConfigError(f"{PREPROCESSOR}: {key!r} = {show(value)} is not implemented here.")


def _shortest(content: Mapping[str, Any]) -> bool:
    """Returns whether a bare number is the shortest edge: it was to these classes."""
    said = content.get("image_processor_type") or content.get("feature_extractor_type") or ""
    return not content.get("default_to_square", not said.startswith(("CLIP", "Bit")))


def _crop_share(final: list[int], scaled: list[int]) -> float:
    """Returns the share for which `floor(final / share)` is exactly `scaled`."""
    share = final[0] / scaled[0]
    for _ in range(4):
        if [math.floor(side / share) for side in final] == scaled:
            return share
        share = math.nextafter(share, 0)
    raise ConfigError(
        f"{PREPROCESSOR}: a crop of {final} out of {scaled} keeps different shares of both sides."
    )


def write_preprocessor(tokenizer: Any, processor: str) -> dict[str, Any]:
    """Returns transformers' preprocessor_config.json for an image processor class.

    Raises: ConfigError for what no image processor of transformers does.
    """
    height, width = tokenizer.size or tokenizer.image
    scaled = [math.floor(height / tokenizer.crop), math.floor(width / tokenizer.crop)]
    if tokenizer.resize == "pad" or (tokenizer.resize == "shortest" and height != width):
        raise ConfigError(
            f"tokenizer.resize: transformers has no {tokenizer.resize!r} for {height} x {width}."
        )
    shortest = tokenizer.resize == "shortest"
    crops = shortest or scaled != [height, width]
    size = {"shortest_edge": scaled[0]} if shortest else {"height": scaled[0], "width": scaled[1]}
    numbers = {name: number for number, name in RESAMPLE.items()}
    return {
        "image_processor_type": processor,
        "do_resize": True,
        "size": size,
        "resample": numbers[tokenizer.interpolation],
        **(
            {"do_center_crop": True, "crop_size": {"height": height, "width": width}}
            if crops
            else {}
        ),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": tokenizer.mean,
        "image_std": tokenizer.std,
    }


def whole(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Returns tokenizer keys with `cut` set where a picture does not divide into whole patches:
    the convolutions of every library leave the rest out."""
    ragged = any(s % p for s, p in zip(tokenizer["image"], tokenizer["patch"], strict=True))
    return {**tokenizer, "cut": True} if ragged else tokenizer
