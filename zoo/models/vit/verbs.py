"""What a loaded vision model does with raw pictures: classify, embed, show where it looks."""

# b batch, k classes, d features, h heads, n tokens, r c rows and columns of patches

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.models.predictions import most_probable
from zoo.models.vit.labels import class_names
from zoo.nn.attention import Record
from zoo.tokenizers.image import as_list

__all__ = ["ImageVerbs"]


class ImageVerbs(nn.Module if TYPE_CHECKING else object):  # type: ignore[misc]
    """Mixed into vision models, which are modules with a `config` and a `tokenizer`.

    Every verb takes one raw picture (path, bytes, PIL image, array) or a list of them, and answers
    in kind. Raises: DataError for what is no picture, ConfigError for what the model cannot do.
    """

    config: Any
    tokenizer: Any

    @torch.inference_mode()
    def classify(self, images: Any, top: int = 5, batch_size: int = 32) -> Any:
        """Returns the `top` most probable classes, best first: a list of Prediction, or a list of
        such lists."""
        if not self.config.classes:
            raise ConfigError("This model has no classes; use embed, or create it with classes=N.")
        labels = class_names(self.config)
        pictures, several = as_list(images)
        found: list[Any] = []
        for pixels in self._batches(pictures, batch_size):
            found += most_probable(self(pixels).logits, labels, top)
        return found if several else found[0]

    @torch.inference_mode()
    def embed(self, images: Any, batch_size: int = 32) -> Tensor:
        """Returns the pooled features in fp32: (d) of one picture, (b d) of a list."""
        pictures, several = as_list(images)
        pooled = [self(pixels).pooled for pixels in self._batches(pictures, batch_size)]
        features = torch.cat(pooled).float().cpu()
        return features if several else features[0]

    @torch.inference_mode()
    def attention_maps(self, images: Any, layer: int = -1, batch_size: int = 32) -> Tensor:
        """Returns where the class token looks, (h r c), with a leading b for a list.

        `layer` counts blocks as Python does. A model without a class token gives the mean over its
        patches. What looks at prefix tokens is left out, so a map sums to at most 1.
        """
        depth = self.config.backbone.depth
        if not -depth <= layer < depth:
            raise ConfigError(f"layer: {layer} is none of the {depth} blocks.")
        pictures, several = as_list(images)
        maps = []
        for pixels in self._batches(pictures, batch_size):
            record = Record(attention=True)
            self(pixels, record=record)
            if layer % depth not in record.weights:
                raise ConfigError("attention: this mixer has no weights that could be shown.")
            weights = record.weights[layer % depth]  # b h n n
            rows = weights[:, :, 0] if self.config.class_token else weights.mean(2)  # b h n
            grid = self.tokenizer.grid_for(*pixels.shape[2:])
            maps.append(rows[..., self.config.prefix_tokens :].unflatten(-1, grid).float().cpu())
        found = torch.cat(maps)
        return found if several else found[0]

    @torch.no_grad()
    def patch_shape(self, layer: int | Sequence[int] | None = None) -> tuple[int, int]:
        """Returns (tokens, width) of what `patch_tokens` gives for a picture of the configured
        size: asked of the model itself, which may be on the meta device."""
        parameter, config = next(self.parameters()), self.tokenizer.config
        pixels = torch.zeros(1, config.channels, *config.image).to(parameter)
        was_training = self.training
        self.eval()
        try:
            _, tokens, width = self.patch_tokens(pixels, layer).shape
        finally:
            self.train(was_training)
        return tokens, width

    def _batches(self, pictures: list[Any], size: int) -> Iterator[Tensor]:
        """Yields pixels on the model's device, and has the model in eval mode meanwhile."""
        parameter = next(self.parameters())
        was_training = self.training
        self.eval()
        try:
            for start in range(0, max(len(pictures), 1), size):
                pixels = self.tokenizer.preprocess(pictures[start : start + size])
                yield pixels.to(parameter.device, parameter.dtype)
        finally:
            self.train(was_training)
