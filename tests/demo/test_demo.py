"""zoo demo: every shipped model is used, and the page is whole."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.demo import gallery, page
from zoo.errors import UnknownName
from zoo.models import shipped

VOID = {"img", "meta", "br", "hr", "link"}


class Check(HTMLParser):
    """Collects pictures, and whether every tag that opens closes."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.links, self.words = [], [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            assert attributes["alt"]
            self.sources.append(attributes["src"])
        if tag == "a":
            self.links.append(attributes["href"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def check(text):
    found = Check()
    found.feed(text)
    assert found.open == []
    return found


@pytest.fixture
def untrained(monkeypatch):
    """vit-digits as if it shipped, with new weights, so that the demo has mistakes to show."""
    model = zoo.create("vit-digits", "backbone.depth=1", seed=0).eval()
    monkeypatch.setattr(shipped, "shipped_models", lambda: {"vit-digits": "vit-digits"})
    monkeypatch.setattr(zoo, "load", lambda name: model, raising=False)
    return model


def test_the_gallery_is_whole(untrained, tmp_path):
    said = []
    done = gallery.run(tmp_path / "g", say=said.append)
    found = check((tmp_path / "g" / "index.html").read_text(encoding="utf-8"))
    assert found.links == ["#vit-digits"]
    assert len(found.sources) == len(set(found.sources)) > 20
    for source in found.sources:
        assert "//" not in source  # nothing comes from a network
        with Image.open(tmp_path / "g" / source) as picture:
            assert np.ptp(np.asarray(picture)) > 0, source
    assert done["pictures"] == len(list((tmp_path / "g").rglob("*.png")))
    assert [*done["models"]] == ["vit-digits"] and done["page"].endswith("index.html")


def test_what_is_said_is_true(untrained, tmp_path):
    from zoo.data.digits import load_digits

    said = []
    gallery.run(tmp_path, say=said.append)
    images, labels = load_digits("test")
    right = sum(
        answer[0].label == str(label)
        for answer, label in zip(untrained.classify(list(images), top=1), labels)
    )
    text = "\n".join(said)
    assert f"{right} right, {360 - right} wrong: {right / 360:.2%}" in text
    assert "vit-digits · ViT for handwritten digits · " in text
    assert "and it is mistaken" in text
    page_text = " ".join(check((tmp_path / "index.html").read_text()).words)
    assert f"Mistakes: {360 - right} of 360" in page_text and f"{right / 360:.2%}" in page_text


def test_a_model_that_no_file_shows_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "shipped_models", lambda: {"vit-base-16": "vit-base-16"})
    said = []
    done = gallery.run(tmp_path, say=said.append)
    assert done["models"] == {} and "no file in zoo/demo shows vit models yet" in "\n".join(said)


def test_only_shipped_names_may_be_asked_for(untrained, tmp_path):
    with pytest.raises(UnknownName, match=r"ships with zoo. Did you mean 'vit-digits'"):
        gallery.run(tmp_path, ["vit-digit"])


def test_every_modality_says_what_it_is():
    found = list(gallery.modalities())
    assert found
    for module in found:
        assert module.TITLE and callable(module.shows) and callable(module.show)


def test_the_command(untrained, tmp_path, monkeypatch, capsys):
    import json

    from zoo.cli import main

    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert "open it in a browser" in capsys.readouterr().out
    assert main(["demo", "vit-digits", "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == str(tmp_path / "index.html")


# -- shipped weights -----------------------------------------------------------------------------


def test_shipped_models_are_found_by_their_folder():
    for name, folder in shipped.shipped_models().items():
        assert (shipped.ASSETS / folder / "config.json").is_file()
        assert zoo.config(name).weights


# -- the page ------------------------------------------------------------------------------------


def test_what_is_not_html_is_escaped():
    nasty = '<script>"&'
    blocks = [
        page.heading(nasty),
        page.text(nasty),
        page.facts([(nasty, nasty)]),
        page.figure("a.png", nasty),
        page.bars([(nasty, 0.5)], right=nasty),
        page.card([page.figure('"x', nasty)], page.text(nasty), bad=True),
    ]
    text = page.page(nasty, nasty, {nasty: page.section(nasty, nasty, nasty, nasty, blocks)}, nasty)
    assert "<script>" not in text
    assert check(text).words.count(nasty) > 5


def test_bars_mark_right_and_wrong():
    assert "class=right" in page.bars([("3", 0.9), ("5", 0.1)], right="3")
    wrong = page.bars([("3", 0.9), ("5", 0.1)], right="5")
    assert "class=wrong" in wrong and "<b>5</b>" in wrong
    assert "width:90.0%" in wrong and "10.0%" in wrong


def test_backticks_are_code():
    assert page.text("say `zoo list` now") == "<p>say <code>zoo list</code> now</p>"
    assert page.text("") == ""


def test_the_page_needs_nothing_from_a_network():
    text = page.page("t", "l", {}, "f")
    assert not re.search(r"https?://|<script|@import|url\(", text)
