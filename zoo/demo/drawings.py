"""Drawings: pictures and clips of handwritten digits after prompts, and what a judge reads."""

# n pictures

from __future__ import annotations

import time
from typing import Any

from zoo.demo import page
from zoo.demo.gallery import Gallery

TITLE = "Drawings"
PROMPT = "a handwritten red three"
PROMPTS = ("a handwritten green zero", "a handwritten white eight", "a handwritten blue five")
SEEN = "a handwritten blue seven"  # where the others draw over a part of a picture
STORY = ("a three moving left", "a three moving up")
SCALE = 4  # pixels of a figure for each that is drawn


def shows(config: Any) -> bool:
    """Whether this draws our handwritten digits."""
    return config.zoo_kind == "generator" and getattr(config.tokenizer, "folder", "") == (
        "tokenizer-captions"
    )


def show(name: str, model: Any, gallery: Gallery) -> list[str]:
    """Draws prompts; a model of clips tells a story instead."""
    if model.config.frames > 1:
        return _clips(name, model, gallery)
    return _pictures(name, model, gallery)


# -- pictures --------------------------------------------------------------------------------------


def _pictures(name: str, model: Any, gallery: Gallery) -> list[str]:
    blocks = [_facts(name, model, gallery)]
    first, others = _others(name)
    if first:
        blocks += _side_by_side([name, *others], gallery)
    blocks.append(page.heading("More prompts"))
    rows = []
    for number, prompt in enumerate(PROMPTS):
        rows.append(_sheet(model.draw(prompt, 6, seed=number), gallery, f"{name}/{number}", prompt))
    blocks.append(page.row(rows))
    unseen = "a handwritten red seven"
    drawn = _sheet(model.draw(unseen, 6, seed=0), gallery, f"{name}/unseen", unseen)
    blocks += [
        page.heading("A pair of words that training never showed"),
        page.text("There are red digits and sevens among the training pictures, but no red seven."),
        drawn,
    ]
    if not model.config.causal:
        blocks += _passes(name, model, gallery)
    return blocks


def _facts(name: str, model: Any, gallery: Gallery) -> str:
    from zoo.data.judge import read_digits

    start = time.perf_counter()
    pictures = model.draw(PROMPT, 48, seed=0)
    seconds = time.perf_counter() - start
    right = int((read_digits(_pixels(pictures)) == 3).sum())
    gallery.say(f"  {PROMPT!r}, 48 times in {seconds:.1f} s: a judge reads {right} of them as a 3")
    ways = "a pass for every code" if model.config.causal else "8 passes for all codes"
    count = sum(p.numel() for p in model.parameters())
    return page.facts(
        [
            ("parameters", f"{count:,}"),
            ("codes of a picture", " x ".join(map(str, model.config.shape))),
            ("how", ways),
            ("read as a 3", f"{right} of 48"),
        ]
    )


def _others(name: str) -> tuple[bool, list[str]]:
    """Returns whether this is the first of the shipped models of pictures, and the later ones."""
    import zoo
    from zoo.models.shipped import shipped_models

    names = []
    for other in shipped_models():
        config = zoo.config(other)
        if shows(config) and config.frames == 1:
            names.append(other)
    return names[:1] == [name], names[1:]


def _side_by_side(names: list[str], gallery: Gallery) -> list[str]:
    """Draws one prompt with all of them."""
    import zoo

    figures = []
    for name in names:
        drawn = zoo.load(name).draw(PROMPT, 9, seed=0)
        figures.append(_sheet(drawn, gallery, f"{name}/side", name, columns=3))
    return [page.heading(f"“{PROMPT}”, by all of them"), page.row(figures)]


def _passes(name: str, model: Any, gallery: Gallery) -> list[str]:
    """Shows how a picture comes out of masks, and a part of it drawn anew."""
    import numpy as np

    strip: list[Any] = []
    model.draw(PROMPT, seed=1, watch=lambda codes: strip.append(model.show(codes)[0]))
    start = model.draw(SEEN, seed=2)[0]
    mask = np.zeros((start.height, start.width), dtype=bool)
    mask[:, start.width // 2 :] = True
    anew = model.edit(start, mask, SEEN.replace("seven", "nine"), 5, seed=0)
    return [
        page.heading("Pass by pass"),
        page.text("Codes that are still masked are shown as the first code of the book."),
        _sheet(strip, gallery, f"{name}/passes", PROMPT, columns=len(strip)),
        page.heading("The right half drawn anew, the left kept code for code"),
        _sheet([start, *anew], gallery, f"{name}/edit", "first the whole", columns=6),
    ]


# -- clips -----------------------------------------------------------------------------------------


def _clips(name: str, model: Any, gallery: Gallery) -> list[str]:
    start = time.perf_counter()
    frames = model.animate(list(STORY), seed=0)
    seconds = time.perf_counter() - start
    gallery.say(f"  {' / '.join(STORY)}: {len(frames)} frames in {seconds:.1f} s")
    moving = gallery.clip(frames, f"{name}/story", scale=SCALE)
    blocks = [
        page.facts(
            [
                ("parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
                ("codes of a clip", " x ".join(map(str, model.config.shape))),
                ("frames of the story", f"{len(frames)}"),
                ("time", f"{seconds:.1f} s"),
            ]
        ),
        page.heading(f"A story: “{STORY[0]}”, then “{STORY[1]}”"),
        page.row(
            [
                page.figure(moving, "as it moves", pixels=True),
                _sheet(frames, gallery, f"{name}/frames", "frame by frame", columns=len(frames)),
            ]
        ),
        page.heading("One scene each"),
    ]
    for number, prompt in enumerate(("a zero moving right", "a seven moving down")):
        clip = model.animate(prompt, seed=number)
        moving = gallery.clip(clip, f"{name}/scene-{number}", scale=SCALE)
        still = _sheet(clip, gallery, f"{name}/still-{number}", prompt, columns=len(clip))
        blocks.append(page.row([page.figure(moving, pixels=True), still]))
    return blocks


def _sheet(pictures: list[Any], gallery: Gallery, name: str, caption: str, columns: int = 6) -> str:
    from zoo.models.generator.pictures import sheet

    picture = gallery.picture(sheet(pictures, columns, SCALE if columns > 3 else 2 * SCALE), name)
    return page.figure(picture, caption, pixels=True)


def _pixels(pictures: list[Any]) -> Any:  # n 3 h w
    import numpy as np
    import torch

    stack = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 255
