"""What counts as the same text, against openai-whisper's own normalizers."""

import sys
from types import SimpleNamespace

import pytest
import torch

import zoo
from zoo.errors import ConfigError
from zoo.registry import build, resolve
from zoo.training.speech.normalizer import normalizer

pytest.importorskip("whisper_normalizer", reason="the extra wer")

TEXTS = [
    # from openai-whisper's tests/test_normalizer.py
    *("two", "thirty one", "five twenty four", "nineteen ninety nine", "twenty nineteen"),
    *("two point five million", "four point two billions", "200 thousand", "$20 million"),
    *("200 thousand dollars", "€52.4 million", "£77 thousands", "two double o eight"),
    *("three thousand twenty nine", "forty three thousand two hundred and sixty"),
    *("nineteen fifties", "thirty first", "three billion", "millions", "fifty percent"),
    *("july third twenty twenty", "august twenty sixth twenty twenty one", "3 14", "3.14"),
    *("3 point 2", "fourteen hundred four", "two twenty two", "double zero", "one oh one"),
    *("mobilisation", "cancelation", "Let's", "he's like", "she's been like", "10km", "RC232"),
    "Mr. Park visited Assoc. Prof. Kim Jr.",
    # and signs
    *("", "Uh, hmm: [laughs] I wouldn't (ever) go <i>there</i>!", "Ünïcode — naïve café", "¿Qué?"),
]


@pytest.mark.parametrize("name", ["basic", "english"])
def test_texts_are_openais(name):
    from whisper import normalizers

    theirs = {
        "basic": normalizers.BasicTextNormalizer, "english": normalizers.EnglishTextNormalizer
    }[name]()  # fmt: skip
    ours = normalizer(name)
    for text in TEXTS:
        assert ours(text) == theirs(text).strip(), text
    assert normalizer("none")(TEXTS[-2]) == TEXTS[-2]


def test_what_is_missing_is_named(monkeypatch):
    for module in [m for m in sys.modules if m.startswith("whisper_normalizer")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "whisper_normalizer", None)
    with pytest.raises(ConfigError, match=r"pip install 'multimodal-zoo\[wer\]'"):
        normalizer("english")
    assert normalizer("none")("as it is") == "as it is"  # needs nothing


@pytest.mark.parametrize(
    ("name", "wrong", "words"), [("none", 4, 5), ("basic", 3, 5), ("english", 0, 4)]
)
def test_error_rates_count_what_is_left(name, wrong, words):
    """Said and heard differ in capitals, a comma, the spelling of a number and of a word."""
    objective = build(resolve("objective", {"kind": "ctc", "normalizer": name}))
    model = zoo.create("conformer-ctc-digits", "backbone.depth=1", "backbone.width=32", seed=0)
    objective.check(model, None)
    objective.decode = lambda *_: [[1]]
    model.tokenizer = SimpleNamespace(decode=lambda *_, **__: "the color of 21")
    batch = {
        "features": torch.randn(1, 60, 40, generator=torch.Generator().manual_seed(0)),
        "lengths": torch.tensor([60]),
        "targets": torch.ones(1, 6, dtype=torch.long),
        "target_lengths": torch.tensor([6]),
        "texts": ["The Colour, of TWENTY one"],
        "valid": torch.tensor([True]),
    }
    found = objective.measure(model.eval(), batch)["wer"]
    assert (int(found[0]), int(found[1])) == (wrong, words)
