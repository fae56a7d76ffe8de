"""Text: shipped models write, fill, translate; where they look, and what surprises them."""

from __future__ import annotations

import time
from typing import Any

from zoo import plot
from zoo.demo import page
from zoo.demo.gallery import Gallery

TITLE = "Text"
PROMPTS = [
    "import os\n\ndef read_file(path):\n",
    "class Stack:\n    def __init__(self):\n",
    "    for name in sorted(",
]
SOURCE = """def add(self, item):
    \"\"\"Add an item to the queue.\"\"\"
    self.items.append(item)
    if len(self.items) > self.limit:
        raise banana
"""
HOLES = ["def __init__({}, name):", "for i in {}(10):", "if x is not {}:", "import {}\n"]


def shows(config: Any) -> bool:
    """Whether this is a text model of Python sources or of numbers in words."""
    folder = getattr(getattr(config, "tokenizer", None), "folder", None)
    return config.zoo_kind in _SHOWN and folder in ("tokenizer-stdlib", "tokenizer-numbers")


def show(name: str, model: Any, gallery: Gallery) -> list[str]:
    """Lets a model do what its kind does, and draws what it looked at."""
    return _SHOWN[model.config.zoo_kind](name, model, gallery)


def _decoder(name: str, model: Any, gallery: Gallery) -> list[str]:
    from zoo.models.text.looking import attention_over, surprise

    start = time.perf_counter()
    written = [model.generate(prompt, max_new_tokens=48) for prompt in PROMPTS]
    seconds = time.perf_counter() - start
    tokens = sum(len(model.tokenizer.encode(text)) for text in written)
    gallery.say(f"  {tokens} tokens written in {seconds:.1f} s ({tokens / seconds:.0f} a second)")
    blocks = [page.facts([*_facts(model), ("tokens a second", f"{tokens / seconds:.0f}")])]
    blocks.append(page.heading("What it writes"))
    for index, (prompt, text) in enumerate(zip(PROMPTS, written, strict=True)):
        gallery.say(f"  {prompt!r} goes on {text[:60]!r}")
        pieces = [(prompt, 0.0), (text, 0.35)]
        picture = gallery.picture(plot.words(pieces, high=1.0), f"{name}/written-{index}")
        blocks.append(page.figure(picture, "Given, then (shaded) what the model went on with."))
    found = surprise(model, SOURCE)
    most = max(found, key=lambda pair: pair[1])
    gallery.say(f"  what surprises it most in a function: {most[0]!r} ({most[1]:.1f} bits)")
    surprised = gallery.picture(plot.words(found, high=12.0), f"{name}/surprise")
    looked = attention_over(model, "self.items.append(item)\nself.items.")
    seen = gallery.picture(_table(looked), f"{name}/attention")
    return [
        *blocks,
        page.heading("What surprises it"),
        page.figure(surprised, "Each token on the bits it costs: white none, red 12 and more."),
        page.heading("Where it looks"),
        page.figure(seen, "Rows look at columns; last block, the mean of its heads."),
    ]


def _encoder(name: str, model: Any, gallery: Gallery) -> list[str]:
    from zoo.models.text.looking import attention_over, surprise

    mask = model.tokenizer.id_to_token(model.special("mask"))
    blocks = [page.facts(_facts(model)), page.heading("What it fills in")]
    cards = []
    for hole in HOLES:
        answers = model.fill(hole.format(mask), top=4)
        gallery.say(f"  {hole.format('____')!r}: {answers[0].token} ({answers[0].probability:.0%})")
        shares = [(_plain(model, a.token), a.probability) for a in answers]
        cards.append(page.card([page.text(f"`{hole.format('____').strip()}`")], page.bars(shares)))
    found = surprise(model, SOURCE)
    surprised = gallery.picture(plot.words(found, high=12.0), f"{name}/surprise")
    looked = attention_over(model, "for name in names:\n    print(name)")
    seen = gallery.picture(_table(looked), f"{name}/attention")
    return [
        *blocks,
        page.grid(cards),
        page.heading("What surprises it"),
        page.figure(surprised, "Each token hidden in turn, on the bits that it then costs."),
        page.heading("Where it looks"),
        page.figure(seen, "Rows look at columns; last block, the mean of its heads."),
    ]


def _translator(name: str, model: Any, gallery: Gallery) -> list[str]:
    from zoo.data.text.numbers import in_words, numbers_of
    from zoo.models.text.looking import attention_over

    unseen = numbers_of("test")
    chosen = unseen[:: len(unseen) // 240]
    sources = [in_words(number, "en") for number in chosen]
    wanted = [in_words(number, "de") for number in chosen]
    start = time.perf_counter()
    written = model.translate(sources)
    seconds = time.perf_counter() - start
    right = sum(a == b for a, b in zip(written, wanted, strict=True))
    gallery.say(f"  {right} of {len(chosen)} unseen numbers right, in {seconds:.1f} s")
    for index in (40, 120, 200):
        gallery.say(f"  {sources[index]} -> {written[index]}")
    looked = attention_over(model, sources[200], written[200])
    seen = gallery.picture(_table(looked), f"{name}/attention")
    facts = [("unseen numbers right", f"{right} of {len(chosen)}")]
    lines = [page.text(f"`{sources[i]}` {written[i]}") for i in range(20, len(chosen), 40)]
    return [
        page.facts([*_facts(model), *facts]),
        page.heading("Numbers that training never saw"),
        *lines,
        page.heading("Where it looks"),
        page.figure(seen, "Each row writes the token after it; last block, mean of its heads."),
    ]


_SHOWN = {"causal-lm": _decoder, "masked-lm": _encoder, "seq2seq": _translator}


def _facts(model: Any) -> list[tuple[str, str]]:
    count = sum(parameter.numel() for parameter in model.parameters())
    return [("parameters", f"{count:,}"), ("vocabulary", f"{model.config.vocabulary:,}")]


def _table(looked: Any) -> Any:
    return plot.table(looked.weights.mean(0), looked.rows, looked.columns)


def _plain(model: Any, token: str) -> str:
    return model.tokenizer.decode([model.tokenizer.token_to_id(token)]).strip() or repr(token)
