"""What a loaded model that draws clips does with a story: animate, scene by scene."""

# b clips, c channels, t h w frames and pixels

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.models.generator.pictures import as_picture
from zoo.models.generator.sample import UNKNOWN
from zoo.models.generator.schema import grid_of

__all__ = ["ClipVerbs", "Watch"]

Watch = Callable[[Tensor], None]  # called with the codes (b n) as they come, -1 where unknown


class ClipVerbs:
    """Mixed into the verbs of a model that draws, which has its codes and its tokenizer."""

    config: Any
    device: Any
    draw_codes: Callable[..., Tensor]
    _visual: Callable[..., Any]

    @torch.inference_mode()
    def animate(
        self,
        prompts: Any,
        *,
        frames: int | None = None,
        first: Any = None,
        overlap: int = 1,
        watch: Watch | None = None,
        **given: Any,
    ) -> list[Any]:
        """Returns the frames (PIL) of a clip that follows one prompt after the other.

        Args:
            prompts: a text, or a story of several; each goes on from the frames before it.
            frames: of each scene; null is what the model was made for.
            first: a picture, or a list of frames, that the clip goes on from.
            overlap: how many frames a scene sees of the one before. More of them also say how it
                moved, against a prompt that turns.
        Raises: ConfigError for models of pictures, DataError for numbers of frames that do not fit.
        """
        visual = self._visual()
        if not visual.video:
            raise ConfigError("This model draws pictures; animate is for models of clips.")
        story = [prompts] if isinstance(prompts, str) else list(prompts)
        length = frames or self.config.frames
        pixels = None if first is None else self._clip(first)  # 1 c t h w
        for number, prompt in enumerate(story):
            options = {**given}
            if given.get("seed") is not None:
                options["seed"] = given["seed"] + number
            scene = self.scenes([prompt], pixels, length, overlap, watch=watch, **options)
            pixels = scene if pixels is None else torch.cat([pixels, scene], dim=2)
        return [as_picture(frame) for frame in visual.pictures(pixels)[0]]

    @torch.inference_mode()
    def scenes(
        self,
        prompts: list[Any],
        before: Tensor | None = None,  # b c t h w, a clip for each prompt; None begins anew
        frames: int | None = None,
        overlap: int = 1,
        **given: Any,
    ) -> Tensor:  # b c t h w
        """Returns the new frames of a scene for each prompt, of `frames` with the `overlap` last
        ones before it, that it goes on from. Raises ConfigError where nothing would be new."""
        visual = self._visual()
        grid = grid_of(visual.config, self.config.image, frames or self.config.frames)
        known = torch.full((len(prompts), *grid), UNKNOWN, device=self.device)
        kept = 0
        if before is not None and visual.config.encoder.time_leaks:
            raise ConfigError(
                "visual.encoder.time_leaks: codes of such a tokenizer are of a whole clip, so no "
                "scene can go on from frames; give one prompt and no frames."
            )
        if before is not None:
            kept = min(overlap, before.shape[2])
            seen = visual.encode(before[:, :, -kept:]).ids
            if seen.shape[1] >= grid[0]:
                length = visual.shape(grid)[0]
                raise ConfigError(f"overlap: a scene of {length} frames has no room for {kept}.")
            known[:, : seen.shape[1]] = seen
        codes = self.draw_codes(prompts, known.flatten(1), grid=grid, **given)
        return visual.decode(codes, grid=grid)[:, :, kept:]

    def _clip(self, first: Any) -> Tensor:  # -> 1 c t h w
        frames = first if isinstance(first, list) else [first]
        pixels = self._visual().preprocess(frames, self.config.image)  # t c h w
        return pixels.movedim(0, 1)[None].to(self.device)
