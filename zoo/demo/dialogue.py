"""Pictures and words: questions about the embedded digits, the answers, and where they look."""

# r c rows and columns of patches, k pictures of a question

from __future__ import annotations

import time
from typing import Any

import torch

from zoo import plot
from zoo.demo import page
from zoo.demo.gallery import Gallery

TITLE = "Pictures and words"
DIGITS = [str(digit) for digit in range(10)]
SHOWN = 84  # pixels of a picture in a card
EACH = 2  # cards of every kind of question
MEASURED = 420  # held-out questions


def shows(config: Any) -> bool:
    """Whether this is a model that answers questions about digits, in pictures or in words."""
    if config.zoo_kind == "causal-lm":
        return getattr(config.tokenizer, "folder", None) == "tokenizer-digits"
    return config.zoo_kind == "vision-language" and getattr(config.vision, "labels", 0) == DIGITS


def show(name: str, model: Any, gallery: Gallery) -> list[str]:
    """Asks about scans that were held out of training, two questions of every kind, and measures
    some hundred more."""
    from zoo.data.digits import load_digits
    from zoo.registry import build, resolve

    if model.config.zoo_kind == "causal-lm":
        return _words(model, gallery)
    images, _ = load_digits("test")
    questions = build(resolve("data", "digit-questions")).split("test", model)
    kinds = questions.batch([0])["kinds"]
    cards, right = [], 0
    start = time.perf_counter()
    for number in range(EACH * len(kinds)):
        _, scans, asked, wanted = questions.sample(number)
        pictures = [images[scan] for scan in scans]
        answer, maps = model.look(pictures, asked)
        right += answer == wanted
        if number < len(kinds):
            gallery.say(f"  {_digits(questions, scans)}: {asked} {answer}")
        cards.append(_card(name, gallery, number, pictures, maps, asked, answer, wanted))
    seconds = (time.perf_counter() - start) / len(cards)
    table = _measured(model, questions)
    total = table.pop("exact")
    gallery.say(f"  {total:.1%} of {MEASURED} held-out questions answered exactly")
    counts = [sum(p.numel() for p in part.parameters()) for part in (model.adapter, model)]
    return [
        page.facts(
            [
                ("parameters", f"{counts[1]:,}"),
                ("adapter", f"{counts[0]:,} ({counts[0] / counts[1]:.2%})"),
                ("exact answers", f"{total:.1%}"),
                ("time per question", f"{1000 * seconds:.0f} ms"),
            ]
        ),
        page.heading("Questions about scans that training never saw"),
        page.text(
            "Above the scans, below where the first word of the answer looks, the mean over all "
            "layers and heads of the language model; what its look at the class token gets is "
            "spread as the tower's class token looks."
        ),
        page.grid(cards),
        page.heading(f"Exact answers by kind of question, {MEASURED} held-out questions"),
        page.bars([(kind.removeprefix("exact/"), share) for kind, share in table.items()]),
    ]


def _words(model: Any, gallery: Gallery) -> list[str]:
    """Measures the language model alone, which reads words where pictures would stand."""
    from zoo.registry import build, resolve

    data = {"name": "digit-questions", "pictures": False}
    table = _measured(model, build(resolve("data", data)).split("test", model))
    total = table.pop("exact")
    gallery.say(f"  {total:.1%} of {MEASURED} questions about digits in words answered exactly")
    return [
        page.facts(
            [
                ("parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
                ("exact answers", f"{total:.1%}"),
            ]
        ),
        page.heading(f"Exact answers by kind of question, {MEASURED} questions in words"),
        page.bars([(kind.removeprefix("exact/"), share) for kind, share in table.items()]),
    ]


def _digits(questions: Any, scans: list[int]) -> str:
    return " and ".join(f"a {int(questions.labels[scan])}" for scan in scans)


def _measured(model: Any, questions: Any) -> dict[str, float]:
    """Returns the share of exact answers, of all and of each kind."""
    from zoo.data.loader import EvalLoader
    from zoo.registry import build, resolve
    from zoo.training.distributed import World

    loader = EvalLoader(_First(questions), batch=105, workers=0)
    with torch.no_grad():
        found = build(resolve("objective", "answers")).evaluate(model, loader, World())
    return {key: value for key, value in found.items() if key.startswith("exact")}


class _First:
    """The first questions of a split."""

    def __init__(self, questions: Any) -> None:
        self.batch = questions.batch

    def __len__(self) -> int:
        return MEASURED


def _card(
    name: str,
    gallery: Gallery,
    number: int,
    pictures: list[Any],
    maps: list[Any],
    asked: str,
    answer: str,
    wanted: str,
) -> str:
    from PIL import Image

    scans = [Image.fromarray(picture) for picture in pictures]
    most = max(float(found.max()) for found in maps)
    looks = [
        plot.overlay(scan.convert("RGB"), (found / most).numpy(), SHOWN)
        for scan, found in zip(scans, maps, strict=True)
    ]
    sheet = plot.sheet([*scans, *looks], columns=len(scans), size=SHOWN)
    source = gallery.picture(sheet, f"{name}/question-{number}")
    said = answer if answer == wanted else f"{answer} (it is {wanted})"
    figure = page.figure(source, f"{asked} {said}")
    return page.card([figure], bad=answer != wanted)
