"""MODEL_CARDS.md and README's table: current, complete, and true."""

import json
import re

import zoo
from tools import write_cards
from zoo.models import shipped


def test_generated_text_is_current():
    found = write_cards.files()
    assert [path.name for path in found] == ["MODEL_CARDS.md", "README.md"]
    for path, text in found.items():
        assert path.read_text(encoding="utf-8") == text, "run: make cards"


def test_every_model_has_a_card():
    text = write_cards.CARDS.read_text(encoding="utf-8")
    for name in write_cards.model_names():
        assert f"\n## {name}\n" in text
        assert f"[{name}](#" in text


def test_readme_names_every_model():
    text = write_cards.README.read_text(encoding="utf-8")
    assert write_cards.BEGIN in text and write_cards.END in text
    table = text.partition(write_cards.BEGIN)[2].partition(write_cards.END)[0]
    assert set(write_cards.model_names()) <= set(re.findall(r"`([^`]+)`", table))


def test_a_card_says_what_the_node_says():
    info = zoo.info("vit-base-16")
    text = write_cards.card(info)
    assert "| parameters | 86,567,656 |" in text
    assert "[arXiv 2010.11929](https://arxiv.org/abs/2010.11929)" in text
    assert "`VisionTransformer` in `zoo/models/vit/model.py`" in text
    assert "position `learned-grid`" in text and "attention.kernel `sdpa`" in text


def test_weights_of_a_card():
    from zoo.models.schema import Weights

    weights = Weights(
        repo="org/repo", revision="a" * 40, format="timm-vit", set={"classes": 0}, license="mit"
    )
    assert write_cards._weights("m", "tag", weights) == [
        "`m.tag`",
        "`org/repo` (timm-vit)",
        f"`{'a' * 12}`",
        "`classes=0`",
        "mit",
    ]


def test_measured_numbers_come_from_beside_the_weights(monkeypatch, tmp_path):
    (tmp_path / "vit-digits").mkdir()
    numbers = {"held_out_accuracy": {"value": 0.9861, "note": "360 scans"}, "steps": 2000}
    (tmp_path / "vit-digits" / "measured.json").write_text(json.dumps(numbers))
    monkeypatch.setattr(shipped, "ASSETS", tmp_path)
    text = write_cards.card(zoo.info("vit-digits"))
    assert "| held out accuracy | 0.9861 | 360 scans |" in text
    assert "| steps | 2000 |  |" in text
    assert "measured" not in write_cards.card(zoo.info("vit-base-16"))
