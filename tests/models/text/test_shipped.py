"""Shipped text models: what their cards say is what they do."""

import bz2
import gzip
import json
import lzma
import sys

import pytest
import torch

import zoo
from zoo.data.text.numbers import in_words, numbers_of
from zoo.data.text.stdlib import stdlib_texts
from zoo.models.shipped import ASSETS
from zoo.training.text.next_token import bits_per_byte

OWN_PYTHON = sys.version_info[:2] == (3, 11)  # whose sources the numbers are of


def measured(name: str, key: str):
    return json.loads((ASSETS / name / "measured.json").read_text())[key]["number"]


@pytest.fixture(scope="module")
def gpt():
    return zoo.load("gpt-stdlib", dtype="fp32")


def test_a_language_model_beats_three_compressors(gpt):
    """On the first held-out modules, each tool on all of their bytes at once."""
    texts = list(stdlib_texts("test"))[:6]
    content = "".join(texts).encode()
    found = bits_per_byte(gpt, texts, length=256, context=128)["bits_per_byte"]
    best = min(
        8 * len(packed) / len(content)
        for packed in (
            gzip.compress(content, 9),
            bz2.compress(content, 9),
            lzma.compress(content, preset=9 | lzma.PRESET_EXTREME),
        )
    )
    assert found < 0.9 * best
    if OWN_PYTHON:
        assert found == pytest.approx(measured("gpt-stdlib", "first_six_modules"), rel=0.02)


def test_the_language_model_writes_python(gpt):
    text = gpt.generate("    def __init__(self", max_new_tokens=16)
    assert text.startswith((")", ",")) and ":" in text
    assert gpt.generate("    def __init__(self", max_new_tokens=16) == text


def test_unseen_numbers_are_translated():
    model = zoo.load("numbers-en-de", dtype="fp32")
    unseen = numbers_of("test")[::40]
    assert len(unseen) > 200
    written = model.translate([in_words(number, "en") for number in unseen])
    right = sum(a == in_words(n, "de") for a, n in zip(written, unseen, strict=True))
    assert right / len(unseen) >= 0.98


def test_short_numbers_are_translated_too():
    """They are one in a thousand, and what people type first."""
    numbers = range(100)
    written = zoo.load("numbers-en-de").translate([in_words(n, "en") for n in numbers])
    assert written == [in_words(n, "de") for n in numbers]


def test_an_encoder_fills_in():
    model = zoo.load("bert-stdlib", dtype="fp32")
    found = model.fill("def __init__(<|mask|>, name):\n    self.name = name\n", top=4)
    assert "self" in [filling.token for filling in found]  # of 4096
    with torch.no_grad():
        assert model.embed("import os").shape == (96,)
