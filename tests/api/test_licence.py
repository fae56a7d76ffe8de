"""Weights that not everyone may use for everything say so when they are loaded."""

from __future__ import annotations

import warnings

import pytest

import zoo
from zoo.registry.folders import forget

NODE = """
defaults: [vit-digits]
weights:
  digits: {folder: vit-digits, license: LICENCE}
"""


@pytest.mark.parametrize(
    ("licence", "restricted"),
    [("cc-by-nc-4.0", True), ("openrail++", True), ("creativeml-openrail-m", True),
     ("apache-2.0", False), ("mit", False)],
)  # fmt: skip
def test_a_restricting_licence_is_told(licence, restricted, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(NODE.replace("LICENCE", licence))
    monkeypatch.setenv("ZOO_CONF_PATH", str(tmp_path))
    forget()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        zoo.load("mine")
    told = [str(w.message) for w in caught if "restricts" in str(w.message)]
    assert bool(told) is restricted
    if restricted:
        assert f"'mine' are under {licence}," in told[0]
    monkeypatch.delenv("ZOO_CONF_PATH")
    forget()


def test_shipped_names_state_theirs():
    assert zoo.config("amused-vq").weights["256"].license == "openrail++"
