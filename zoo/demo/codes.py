"""Codes: what visual tokenizers keep of held-out digits, side by side with the originals."""

# n pictures, t frames, h w pixels

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from zoo import plot
from zoo.demo import page
from zoo.demo.gallery import Gallery

TITLE = "Codes"
SHOWN = 96  # pixels of a picture in a sheet
COUNT = 10


def shows(config: Any) -> bool:
    """Whether this is a tokenizer of the digits that ship."""
    return config.zoo_kind == "visual-codes" and tuple(config.image) == (32, 32)


@torch.no_grad()
def show(name: str, model: Any, gallery: Gallery) -> list[str]:
    """Encodes and decodes held-out pictures or clips; shows them above what came back."""
    from zoo.registry import build, resolve
    from zoo.tokenizers.visual.quantizers.base import use_of
    from zoo.training.codes.reconstruction import psnr

    source = build(resolve("data", "moving-digits" if model.video else "colour-digits"))
    split = source.split("test")
    batch = split.batch(range(0, len(split), len(split) // 240 | 1))  # odd: of every colour
    start = time.perf_counter()
    codes = model.encode(batch["pixels"])
    answer = model.decode(codes.ids)
    seconds = time.perf_counter() - start
    decibel = float(psnr(answer, batch["pixels"]).mean())
    use = use_of(torch.bincount(codes.ids.flatten(), minlength=model.codebook_size))
    read = float(source.judge(answer, batch)["digit"].float().mean())
    grid = " x ".join(map(str, codes.ids.shape[1:]))
    gallery.say(
        f"  {len(codes.ids)} held-out {'clips' if model.video else 'pictures'} as {grid} codes of "
        f"{model.codebook_size} and back in {seconds:.1f} s: {decibel:.1f} dB, {read:.1%} of the "
        f"digits still read, {use['codes_used']:.0%} of the codes used"
    )
    before, after = (model.pictures(pixels) for pixels in (batch["pixels"], answer))
    if model.video:  # one clip in a row of frames
        pairs = [(before[i], after[i]) for i in _spread(len(before), 3)]
        rows = [row for pair in pairs for row in pair]
    else:
        chosen = _spread(len(before), COUNT)
        rows = [before[chosen], after[chosen]]
    sheet = gallery.picture(_sheet(rows), f"{name}/reconstructions")
    return [
        page.facts(
            [
                ("parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
                ("codes", f"{grid} of {model.codebook_size}"),
                ("PSNR", f"{decibel:.1f} dB"),
                ("digits still read", f"{read:.1%}"),
                ("codes in use", f"{use['codes_used']:.0%}, perplexity {use['perplexity']:.1f}"),
            ]
        ),
        page.figure(sheet, "Held-out originals, and below each row what its codes decode to."),
    ]


def _spread(length: int, count: int) -> np.ndarray:
    """Returns `count` numbers evenly over range(length)."""
    return np.linspace(0, length - 1, count).round().astype(int)


def _sheet(rows: list[np.ndarray]) -> Any:
    """Returns rows of pictures (n h w c) as one picture, each in the pixels that it has."""
    from PIL import Image

    pictures = [
        Image.fromarray(array).resize((SHOWN, SHOWN), Image.Resampling.NEAREST)
        for row in rows
        for array in row
    ]
    return plot.sheet(pictures, columns=len(rows[0]), size=SHOWN)
