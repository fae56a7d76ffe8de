"""Pictures: classifiers of the embedded digits, what they answer and where they look."""

# n pictures, h w pixels, k classes

from __future__ import annotations

import time
from typing import Any

import numpy as np

from zoo import plot
from zoo.demo import page
from zoo.demo.gallery import Gallery

TITLE = "Pictures"
DIGITS = [str(digit) for digit in range(10)]
SHOWN = 120  # pixels of a picture in a card
MISTAKES = 8  # at most, shown


def shows(config: Any) -> bool:
    """Whether this is a picture classifier that reads digits."""
    return config.zoo_kind == "vit" and config.labels == DIGITS


def show(name: str, model: Any, gallery: Gallery) -> list[str]:
    """Reads every scan that was held out of training; shows one of each class and the mistakes."""
    from zoo.data.digits import load_digits

    images, labels = load_digits("test")  # n h w
    start = time.perf_counter()
    answers = model.classify(list(images), top=3)
    seconds = time.perf_counter() - start
    taken = np.array([answer[0].index for answer in answers])
    wrong = np.flatnonzero(taken != labels)
    accuracy = 1 - len(wrong) / len(labels)
    typical = [_typical(answers, labels, digit) for digit in range(10)]

    gallery.say(
        f"  read {len(labels)} scans that were held out of training, in {seconds:.1f} s "
        f"({1000 * seconds / len(labels):.1f} ms each)"
    )
    gallery.say(f"  {len(labels) - len(wrong)} right, {len(wrong)} wrong: {accuracy:.2%}")
    for index in typical[:3]:
        gallery.say(f"  a {labels[index]}: {_spoken(answers[index])}")
    for index in wrong[:3]:
        gallery.say(f"  a {labels[index]}, and it is mistaken: {_spoken(answers[index])}")

    def cards(chosen: Any) -> str:
        return page.grid(_card(name, model, gallery, images, labels, answers, i) for i in chosen)

    counts = np.zeros((10, 10), dtype=int)
    np.add.at(counts, (labels, taken), 1)
    table = gallery.picture(plot.matrix(counts, DIGITS), f"{name}/confusion")
    heads = gallery.picture(_heads(model, images[typical[8]]), f"{name}/heads")
    scans = [_scan(images[i], SHOWN) for i in typical]
    captions = [f"{answers[i][0].label} ({answers[i][0].probability:.1%})" for i in typical]
    gallery.picture(plot.sheet(scans, captions, columns=5), f"{name}/sheet")
    blocks = [
        page.facts(
            [
                ("parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
                ("held-out scans", f"{len(labels)}"),
                ("right", f"{accuracy:.2%}"),
                ("time per scan", f"{1000 * seconds / len(labels):.1f} ms"),
            ]
        ),
        page.heading("One of each class"),
        page.text(
            "Left the scan, right where the class token looks in the last block: "
            "bright is strong, the mean of its heads."
        ),
        cards(typical),
        page.heading(f"Mistakes: {len(wrong)} of {len(labels)}"),
        cards(wrong[:MISTAKES]) if len(wrong) else page.text("None."),
        page.heading("All of them at once"),
        page.row(
            [
                page.figure(table, "Rows: what it was. Columns: what it was taken for."),
                page.figure(heads, "An 8 as each head of the last block looks at it."),
            ]
        ),
    ]
    return blocks


def _typical(answers: list[Any], labels: np.ndarray, digit: int) -> int:
    """Returns the scan of a digit whose answer is of middling sureness, so that none is picked."""
    rows = np.flatnonzero(labels == digit)
    sureness = [answers[i][0].probability if answers[i][0].index == digit else 0.0 for i in rows]
    return int(rows[np.argsort(sureness, kind="stable")[len(rows) // 2]])


def _card(
    name: str,
    model: Any,
    gallery: Gallery,
    images: np.ndarray,
    labels: np.ndarray,
    answers: list[Any],
    index: int,
) -> str:
    scan = gallery.picture(_scan(images[index], SHOWN), f"{name}/scan-{index}")
    looked = plot.attention(model, images[index], size=SHOWN)
    attention = gallery.picture(looked, f"{name}/attention-{index}")
    label, answer = str(labels[index]), answers[index]
    return page.card(
        [
            page.figure(scan, f"a {label}", width=SHOWN),
            page.figure(attention, "attention", width=SHOWN),
        ],
        page.bars([(p.label, p.probability) for p in answer], right=label),
        bad=answer[0].label != label,
    )


def _scan(image: np.ndarray, size: int) -> Any:  # h w
    from PIL import Image

    return Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)


def _heads(model: Any, image: np.ndarray) -> Any:
    count = len(model.attention_maps(image))
    pictures = [plot.attention(model, image, head=head, size=SHOWN) for head in range(count)]
    return plot.sheet(pictures, [f"head {h + 1}" for h in range(count)], columns=4, size=SHOWN)


def _spoken(answer: list[Any]) -> str:
    first, second = answer[:2]
    return f"{first} before {second}"
