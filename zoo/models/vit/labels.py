"""Names of classes: a model's own, or those of a label set that timm ships."""

from __future__ import annotations

from functools import cache

from zoo.models.vit.schema import VisionTransformerConfig

__all__ = ["class_names"]


def class_names(config: VisionTransformerConfig) -> list[str]:
    """Returns the name of every class: `labels`, those of `label_set`, or numbers."""
    if config.labels:
        return config.labels
    names = _set_names(config.label_set) if config.label_set else ()
    if len(names) == config.classes:  # a model whose head was replaced keeps its node's label_set
        return list(names)
    return [str(index) for index in range(config.classes)]


@cache
def _set_names(label_set: str) -> tuple[str, ...]:
    from timm.data import ImageNetInfo  # two seconds, so only for who wants names

    info = ImageNetInfo(label_set)
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))
