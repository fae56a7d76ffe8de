"""What the formats of vision towers share: what an export of one must hold."""

from __future__ import annotations

from typing import Any

from zoo.registry import to_mapping
from zoo.weights.formats import _lossless

__all__ = ["checked", "computation"]

# What a public config does not hold and need not, because it changes nothing in what the loaded
# model computes: weights, card, how new weights are made, memory against time. (Where the odd rest
# of a crop goes is a habit of the reading library, not of the model.)
NOT_STORED = (
    "weights", "card", "labels", "label_set", "tokenizer.crop_offset", "backbone.checkpoint",
    "backbone.init_std", "backbone.init_residual", "backbone.length",
)  # fmt: skip


def checked(format: Any, config: Any, public: dict[str, Any]) -> dict[str, Any]:
    """Returns `public` if a vision tower comes back from it; raises ConfigError."""
    return _lossless.checked(format, config, public, computation, _names(config), NOT_STORED)


def _names(config: Any) -> frozenset[str]:
    """Returns the public names in a file of this config that its config.json is silent about."""
    known = {"pooler.dense.weight": config.projection, "embeddings.mask_token": config.mask_token}
    return frozenset(name for name, present in known.items() if present)


def computation(config: Any) -> dict[str, Any]:
    """Returns the plain config with what is only another way to write the same made equal."""
    plain = to_mapping(config)
    backbone, attention = plain["backbone"], plain["backbone"]["attention"]
    if attention["kind"] == "multihead":
        shape = config.backbone.attention.shape(config.backbone.width)
        attention.update(zip(("heads", "kv_heads", "head_dim"), shape, strict=True))
        if attention["scale"] is None:
            attention["scale"] = shape[2] ** -0.5
        if attention["kernel"]["kind"] in ("sdpa", "plain"):
            attention["kernel"] = "exact"
    for position in backbone["position"]:
        if position["kind"] == "learned-grid" and position["prefix"] == config.prefix_tokens:
            position["prefix"] = None
    hidden = config.backbone.feedforward.inner(config.backbone.width)
    backbone["feedforward"].update(hidden=hidden, ratio=None)
    plain["tokenizer"]["size"] = plain["tokenizer"]["size"] or plain["tokenizer"]["image"]
    if not config.projection:
        plain["projection_bias"] = plain["projection_activation"] = None
    return plain
