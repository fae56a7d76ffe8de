"""Name patterns: digits only, inverse of each other, most literal first."""

from __future__ import annotations

import pytest

from zoo.errors import WeightsError
from zoo.weights.patterns import Pattern, PatternTable, Spelling


def test_a_star_is_a_number_and_nothing_else():
    pattern = Pattern("blocks.*.norm1.weight")
    assert pattern.match("blocks.12.norm1.weight") == (("12",), "")
    for name in ("blocks.x.norm1.weight", "blocks..norm1.weight", "blocks.1.2.norm1.weight"):
        assert pattern.match(name) is None
    for name in ("blocks.1.norm1.weights", "a.blocks.1.norm1.weight", "blocks.١.norm1.weight"):
        assert pattern.match(name) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a.b", "a.b"),
        ("a.*.b", "a.007.b"),
        ("layer*.k", "layer3.k"),
        ("a.*.b*.", "a.1.b2.c.d"),
        ("", "anything.at all"),
    ],
)
def test_fill_is_the_inverse_of_match(text, name):
    found = Pattern(text).match(name)
    assert found is not None and Pattern(text).fill(*found) == name


def test_a_prefix_needs_something_behind_it():
    assert Pattern("norm.").match("norm.") is None
    assert Pattern("norm.").match("norm.weight") == ((), "weight")


@pytest.mark.parametrize("text", ["a.**.b", "a.1*.b", "a.*2"])
def test_stars_that_could_be_read_in_two_ways(text):
    with pytest.raises(WeightsError, match="must not touch"):
        Pattern(text)


def test_the_most_literal_pattern_wins():
    table: PatternTable[str] = PatternTable()
    for text in ("", "h.*.", "h.*.attn.", "h.*.attn.bias", "h.0.attn.bias", "h.3.", "mlp.0.weight"):
        table.add(Pattern(text), text)
    for name, text in {
        "h.1.attn.bias": "h.*.attn.bias",
        "h.0.attn.bias": "h.0.attn.bias",
        "h.1.attn.weight": "h.*.attn.",
        "h.1.mlp.0.weight": "h.*.",
        "h.3.mlp.weight": "h.3.",
        "mlp.0.weight": "mlp.0.weight",
        "mlp.1.weight": "",
    }.items():
        hit = table.find(name)
        assert hit is not None and hit.value == text, name


def test_equally_literal_patterns_are_an_error():
    table: PatternTable[int] = PatternTable()
    table.add(Pattern("a.*.0.w"), 1)
    table.add(Pattern("a.0.*.w"), 2)
    assert table.find("a.1.0.w").value == 1
    with pytest.raises(WeightsError, match=r"'a.\*.0.w' and 'a.0.\*.w' .* both claim 'a.0.0.w'"):
        table.find("a.0.0.w")
    with pytest.raises(WeightsError, match="stands twice"):
        table.add(Pattern("a.0.*.w"), 3)


@pytest.mark.parametrize(
    ("spelling", "name", "canonical"),
    [
        (Spelling(".gamma", ".weight"), "a.norm.gamma", "a.norm.weight"),
        (Spelling(".gamma", ".weight"), "a.gamma.bias", "a.gamma.bias"),
        (Spelling(".self.", "."), "l.0.attention.self.query", "l.0.attention.query"),
        (Spelling("v.vision_model.", "v."), "v.vision_model.x", "v.x"),
        (Spelling("layers.*.q_proj.", "h.*.q."), "layers.3.q_proj.weight", "h.3.q.weight"),
        (Spelling("top", "head.weight"), "top", "head.weight"),
        (Spelling(".gamma", ".weight", "text."), "text.n.gamma", "text.n.weight"),
        (Spelling(".gamma", ".weight", "text."), "vision.n.gamma", "vision.n.gamma"),
    ],
)
def test_spellings(spelling, name, canonical):
    assert spelling.apply(name) == canonical
