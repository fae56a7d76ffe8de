"""What the vision encoders of transformers share: keys, names of weights, writing a config."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from zoo.weights.formats._preprocessor import PREPROCESSOR, read_preprocessor, whole
from zoo.weights.formats.keys import Keys, one_size, public_activation, public_labels
from zoo.weights.map import Fuse, Rename, Rule

__all__ = ["attention_rows", "has", "layer_rows", "read_encoder", "read_pictures", "write_encoder"]

OPENAI = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def has(names: Collection[str], ending: str) -> bool:
    """Whether a file has a tensor whose name ends so: what config.json is silent about."""
    return any(name.endswith(ending) for name in names)


def read_encoder(keys: Keys, eps: float) -> dict[str, Any]:
    """Returns the backbone's keys that every family spells the same."""
    return {
        "depth": keys.take("num_hidden_layers", 12),
        "width": keys.take("hidden_size", 768),
        "norm": {"name": "layer", "eps": keys.take("layer_norm_eps", eps)},
        "attention": {
            "heads": keys.take("num_attention_heads", 12),
            "head_dim": keys.take("head_dim", None, int),
        },
        "position": {"name": "learned-grid", "antialias": False},
        "init_std": keys.take("initializer_range", 0.02),
    }


def read_pictures(keys: Keys, patch: int, usual: dict[str, Any]) -> dict[str, Any]:
    """Returns the tokenizer's keys; `usual` is the preprocessing where its file is missing."""
    image = keys.pair("image_size", 224)
    channels = keys.take("num_channels", 3)
    content = keys.take(PREPROCESSOR, {}, dict) or usual_preprocessor(usual, image, channels)
    return whole(
        {
            "image": image,
            "patch": keys.pair("patch_size", patch),
            "channels": channels,
            **read_preprocessor(content, image),
        }
    )


def usual_preprocessor(usual: dict[str, Any], image: list[int], channels: int) -> dict[str, Any]:
    """Returns a preprocessor_config.json for pictures of a size and a number of channels."""
    size = {"height": image[0], "width": image[1]}
    crops = {"do_center_crop": True, "crop_size": size, "size": {"shortest_edge": image[0]}}
    square = usual.get("do_center_crop") and image[0] == image[1]
    numbers = {
        key: usual[key] if channels == 3 else [sum(usual[key]) / 3] * channels
        for key in ("image_mean", "image_std")
    }
    return {"size": size, "resample": usual["resample"], **numbers, **(crops if square else {})}


def write_encoder(config: Any, architecture: str, model_type: str) -> dict[str, Any]:
    """Returns the public keys that every family spells the same."""
    backbone, tokenizer = config.backbone, config.tokenizer
    heads, _, head_dim = backbone.attention.shape(backbone.width)
    public = {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_size": backbone.width,
        "num_hidden_layers": backbone.depth,
        "num_attention_heads": heads,
        "hidden_act": public_activation(backbone.feedforward.activation),
        "layer_norm_eps": backbone.norm.eps,
        "initializer_range": backbone.init_std,
        "image_size": one_size(tokenizer.image),
        "patch_size": one_size(tokenizer.patch),
        "num_channels": tokenizer.channels,
    }
    if head_dim * heads != backbone.width:
        public["head_dim"] = head_dim
    if config.classes:
        public |= public_labels(config.classes, config.labels)
    return public


def attention_rows(theirs: str, ours: str, names: Sequence[str]) -> list[Rule]:
    """Returns the rows of one attention: query, key, value and output under the given names."""
    query, key, value, out = (f"{theirs}{name}." for name in names)
    return [Fuse([query, key, value], ours + "qkv."), Rename(out, ours + "out.")]


def layer_rows(theirs: str, norms: Sequence[str], feedforward: Sequence[str]) -> list[Rule]:
    """Returns the rows of a layer's two norms and its feed-forward (up, down)."""
    ours = "backbone.layers.*."
    targets = ("attention_norm.", "feedforward_norm.", "feedforward.up.", "feedforward.down.")
    return [
        Rename(f"{theirs}{name}.", ours + target)
        for name, target in zip((*norms, *feedforward), targets, strict=True)
    ]
