"""Drawing while measuring: what a model makes of held-out prompts, judged and shown."""

# b samples, c channels, t h w frames and pixels

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.base import Batch
from zoo.models.generator.pictures import as_picture, sheet

__all__ = ["Drawings"]

NOT_PROMPTS = ("pixels", "codes")


class Drawings:
    """The first `count` held-out prompts, kept while the others are measured, then drawn."""

    def __init__(self, data: Any, count: int) -> None:
        self.data, self.count = data, count
        self.shown: list[Any] = []
        self.batches: list[Batch] = []

    def watching(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        """Yields the batches, and remembers what the first ones ask for."""
        self.batches, held = [], 0
        for batch in batches:
            rows = int(min(self.count - held, int(batch["valid"].sum())))
            if rows > 0:
                self.batches.append(
                    {key: value[:rows] for key, value in batch.items() if key not in NOT_PROMPTS}
                )
                held += rows
            yield batch

    def judged(
        self, model: nn.Module, shown: int, **options: Any
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Draws them and returns the verdicts of the data's own judge, name -> (sum, count): each
        of its questions, and `unseen`, how many of the pairs that were never trained on are right
        in all of them."""
        sums: dict[str, list[Tensor]] = {}
        pixels = []
        for number, batch in enumerate(self.batches):
            prompts = batch["captions"] if "captions" in batch else batch["labels"]
            prompts = prompts.tolist() if isinstance(prompts, Tensor) else list(prompts)
            drawn = draw_pixels(model, prompts, seed=number, **options)
            pixels.append(drawn)
            verdicts = self.data.judge(drawn, batch)
            seconds = self._second(model, drawn, batch, seed=number, **options)
            for name, right in {**verdicts, **seconds}.items():
                sums.setdefault(name, []).append(right)
            if "unseen" in batch:
                whole = torch.stack(list(verdicts.values())).all(0)
                sums.setdefault("unseen", []).append(whole[batch["unseen"]])
        every = torch.cat(pixels)
        self.shown = _pictures(model, every[:shown])
        found = {}
        for name, rights in sums.items():
            right = torch.cat(rights)
            found[name] = right.double().sum(), torch.tensor(float(len(right)))
        if hasattr(self.data, "distance"):
            one = torch.tensor(1.0)
            found["frechet"] = torch.tensor(float(self.data.distance(every))), one
        return found

    def _second(self, model: Any, drawn: Tensor, batch: Batch, **options: Any) -> dict[str, Tensor]:
        """Lets clips go on from their last frame after another prompt, where the data says which;
        returns whether the last frame shows the digit, and whether it moved as it should."""
        if not hasattr(self.data, "turn"):
            return {}
        told = self.data.turn(drawn, batch)
        new = model.scenes(told["captions"], drawn, batch_size=256, **options)
        found = self.data.judge(torch.cat([drawn[:, :, -1:], new], dim=2), told)
        return {f"second_{name}": found[name] for name in ("digit_last", "direction")}

    def picture(self) -> Any:
        """Returns the first drawings as one picture; clips are rows of frames."""
        if isinstance(self.shown[0], list):
            frames = [frame for clip in self.shown for frame in clip]
            return sheet(frames, columns=len(self.shown[0]), scale=2)
        return sheet(self.shown, scale=2)


def draw_pixels(model: Any, prompts: list[Any], **options: Any) -> Tensor:
    """Returns pixels (b c [t] h w) of prompts."""
    with torch.inference_mode():
        codes = model.draw_codes(prompts, batch_size=256, **options)
        return model.visual.decode(codes, grid=model.config.shape)


def _pictures(model: Any, pixels: Tensor) -> list[Any]:
    arrays = model.visual.pictures(pixels)
    if arrays.ndim == 5:
        return [[as_picture(frame) for frame in clip] for clip in arrays]
    return [as_picture(array) for array in arrays]
