"""The first word of an answer: a second question about the same picture against the first one."""

from __future__ import annotations

from collections.abc import Iterator

from tools.bench.measure import Prepared

DOC = "first word about a picture: a second question against a first one (CLIP-B/32, 6 x 512)"
PEERS = ["first question"]
OVERRIDES = (
    "vision={name: clip-vit-base-32, projection: null}",
    "text={name: smollm2-135m, vocabulary: 259, tokenizer: {name: byte, chat: llava-v1},"
    " special: {eos: 1}, backbone: {depth: 6, width: 512, feedforward: {hidden: 1408},"
    " attention: {heads: 8, kv_heads: 8, head_dim: 64}}}",
    "image_token=-200",
)


def prepare(peers: list[str]) -> Iterator[tuple[str, Prepared]]:
    """Yields the one comparison; what is remembered changes no answer."""
    import numpy as np

    import zoo

    model = zoo.create("llava-1.5-7b", *OVERRIDES, seed=0).eval()
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    questions = ["what is on the table?", "what is under it?"]

    def first() -> None:
        model.forget()
        model.answer(picture, questions[0], max_new_tokens=1)

    def second() -> None:
        model.answer(picture, questions[1], max_new_tokens=1)

    fresh = []
    for question in questions:
        model.forget()
        fresh.append(model.answer(picture, question, max_new_tokens=8))
    model.forget()
    assert [model.answer(picture, q, max_new_tokens=8) for q in questions] == fresh
    runs = {"zoo": second, **({"first question": first} if peers else {})}
    yield "first word about a picture", Prepared(runs, repeats=7)
