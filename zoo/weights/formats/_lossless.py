"""An export must mean what it came from: what a public format has no word for is not dropped."""

from __future__ import annotations

from typing import Any

from zoo.errors import ConfigError
from zoo.registry import resolve, to_mapping
from zoo.weights.formats.keys import differences, show

__all__ = ["refuse_what_is_lost"]

# What a public config does not hold and need not, because it changes nothing in what the loaded
# model computes: weights, card, how new weights are made, memory against time. (Where the odd rest
# of a crop goes is a habit of the reading library, not of the model.)
NOT_STORED = (
    "weights", "card", "labels", "label_set", "tokenizer.crop_offset", "backbone.checkpoint",
    "backbone.init_std", "backbone.init_residual", "backbone.length",
)  # fmt: skip


def refuse_what_is_lost(
    format: Any, config: Any, public: dict[str, Any], ignore: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Returns `public` if reading it gives `config` again; raises ConfigError naming what is lost.

    This is what keeps an export honest: a part that the format has no word for is not dropped.
    `ignore` lists keys that do not touch what the loaded model computes.
    """
    back = resolve("model", {"kind": config.zoo_kind, **format.read_config(public, _names(config))})
    ours, theirs = _comparable(config), _comparable(back)
    lost = [p for p in differences(ours, theirs) if not p.startswith((*NOT_STORED, *ignore))]
    if lost:
        ours, theirs = _at(ours, lost[0]), _at(theirs, lost[0])
        raise ConfigError(
            f"Format {format.name!r} cannot say {lost[0]} = {show(ours)}; it means {show(theirs)}."
        )
    return public


def _names(config: Any) -> frozenset[str]:
    """Returns the public names in a file of this config that its config.json is silent about."""
    if config.zoo_kind != "vit":
        return frozenset()
    known = {"pooler.dense.weight": config.projection, "embeddings.mask_token": config.mask_token}
    return frozenset(name for name, present in known.items() if present)


def _comparable(config: Any) -> dict[str, Any]:
    """Returns the plain config with what is only another way to write the same made equal."""
    if config.zoo_kind != "vit":
        return to_mapping(config)
    from zoo.nn.attention import head_shape  # torch is there when a model is exported
    from zoo.nn.feedforward import hidden_width

    plain = to_mapping(config)
    backbone, attention = plain["backbone"], plain["backbone"]["attention"]
    if attention["kind"] == "multihead":
        shape = head_shape(config.backbone.attention, config.backbone.width)
        attention.update(zip(("heads", "kv_heads", "head_dim"), shape, strict=True))
        if attention["scale"] is None:
            attention["scale"] = shape[2] ** -0.5
        if attention["kernel"]["kind"] in ("sdpa", "plain"):
            attention["kernel"] = "exact"
    for position in backbone["position"]:
        if position["kind"] == "learned-grid" and position["prefix"] == config.prefix_tokens:
            position["prefix"] = None
    hidden = hidden_width(config.backbone.feedforward, config.backbone.width)
    backbone["feedforward"].update(hidden=hidden, ratio=None)
    plain["tokenizer"]["size"] = plain["tokenizer"]["size"] or plain["tokenizer"]["image"]
    if not config.projection:
        plain["projection_bias"] = plain["projection_activation"] = None
    return plain


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value[int(key)] if isinstance(value, list) else (value or {}).get(key)
    return value
