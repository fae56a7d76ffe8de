"""What a loaded vision model does with raw pictures: classify, embed, show its attention."""

# b batch, h heads, n tokens, r c rows and columns of patches

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.nn.attention import Record

__all__ = ["ImageVerbs", "Prediction"]


@dataclass(frozen=True)
class Prediction:
    """One answer of a classifier."""

    label: str
    index: int
    probability: float

    def __str__(self) -> str:
        return f"{self.label} ({self.probability:.1%})"


def as_list(images: Any) -> tuple[list[Any], bool]:
    """Returns (pictures, whether several were given): a list or a (b ...) stack is several."""
    if isinstance(images, Sequence) and not isinstance(images, (str, bytes, bytearray)):
        return list(images), True
    if getattr(images, "ndim", 0) == 4:
        return list(images), True
    return [images], False


class ImageVerbs:
    """Mixed into vision models. Every verb takes one raw picture (path, bytes, PIL, array) or a list of them."""

    @torch.inference_mode()
    def classify(self, images: Any, top: int = 5, batch_size: int = 32) -> Any:
        """Returns the `top` most probable classes, best first: a list of Prediction, or a list of lists."""
        if not self.config.classes:
            raise ConfigError("This model has no classes; use embed, or create it with classes=N.")
        pictures, several = as_list(images)
        labels = self.config.labels or [str(i) for i in range(self.config.classes)]
        found = []
        for pixels in self._batches(pictures, batch_size):
            probabilities = self(pixels).logits.float().softmax(-1)
            values, indices = probabilities.topk(min(top, probabilities.shape[-1]))
            for row, index in zip(values.tolist(), indices.tolist(), strict=True):
                found.append([Prediction(labels[i], i, p) for i, p in zip(index, row, strict=True)])
        return found if several else found[0]

    @torch.inference_mode()
    def embed(self, images: Any, batch_size: int = 32) -> Tensor:
        """Returns the pooled features: (d) of one picture, (b d) of a list."""
        pictures, several = as_list(images)
        pooled = [self(pixels).pooled for pixels in self._batches(pictures, batch_size)]
        features = torch.cat(pooled).float().cpu()
        return features if several else features[0]

    @torch.inference_mode()
    def attention_maps(self, images: Any) -> Tensor:
        """Returns where the class token looks in the last block, (heads rows columns), with a leading b for a list.

        A model without a class token gives the mean over its patches.
        """
        pictures, several = as_list(images)
        maps = []
        for pixels in self._batches(pictures, 32):
            record = Record(attention=True)
            self(pixels, record)
            weights = record.weights[max(record.weights)]  # b h n n
            prefix = len(self.prefix)
            rows = weights[:, :, 0] if self.config.class_token else weights.mean(2)
            grid = self.tokenizer.grid_for(*pixels.shape[2:])
            maps.append(rows[..., prefix:].unflatten(-1, grid).float().cpu())
        found = torch.cat(maps)
        return found if several else found[0]

    def _batches(self, pictures: list[Any], size: int) -> Iterator[Tensor]:
        parameter = next(self.parameters())
        was_training = self.training
        self.eval()
        try:
            for start in range(0, len(pictures), size):
                pixels = self.tokenizer.preprocess(pictures[start : start + size])
                yield pixels.to(parameter.device, parameter.dtype)
        finally:
            self.train(was_training)
