"""Drawn pictures ordered by how well they fit their prompt, as DALL-E and Parti do it."""

# b pictures, e width of the space that texts and pictures share

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from zoo.errors import ConfigError

__all__ = ["Contrastive", "Scores", "reranker"]

Scores = Callable[[list[Any], str], Any]  # pictures, prompt -> a number for each


class Contrastive:
    """The cosine between pictures and a text in a space that two encoders share (CLIP: Radford et
    al. 2021, arXiv 2103.00020).

    Raises: ConfigError for two models that share no space.
    """

    def __init__(self, pictures: Any, texts: Any) -> None:
        self.pictures, self.texts = pictures, texts
        width = getattr(pictures.config, "projection", None)
        kinds = pictures.config.zoo_kind, texts.config.zoo_kind
        if kinds != ("vit", "masked-lm") or width is None or width != texts.config.projection:
            raise ConfigError(
                "rerank: needs a model of pictures and one of texts that are projected to one "
                "space, such as clip-vit-base-32 and clip-text-base-32."
            )

    def __call__(self, pictures: list[Any], prompt: str) -> Tensor:  # b
        """Returns the cosine of each picture with the prompt."""
        seen = F.normalize(self.pictures.embed(pictures), dim=-1)  # b e
        asked = F.normalize(self.texts.embed(prompt), dim=-1)  # e
        return seen @ asked


def reranker(wanted: Scores | Sequence[Any]) -> Scores:
    """Returns what scores pictures: a function as it is, or a pair of models (or of their names)
    that share a space, pictures first."""
    if callable(wanted):
        return wanted
    from zoo.api.build import load

    if isinstance(wanted, str) or len(wanted) != 2:
        raise ConfigError("rerank: give a function, or two models: one of pictures, one of texts.")
    return Contrastive(*(load(one) if isinstance(one, str) else one for one in wanted))
