"""The plugin of the fixtures, seen for one test as if it were installed."""

import sys
from pathlib import Path

import pytest

from zoo.registry import forget
from zoo.registry.schema import KINDS

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def acme(monkeypatch):
    """The distribution zoo-acme 0.1 on sys.path, alone."""
    monkeypatch.syspath_prepend(str(FIXTURES))
    monkeypatch.setenv("ZOO_PLUGINS", "acme")
    forget()
    yield FIXTURES / "zoo_acme"
    monkeypatch.undo()
    for key in [key for key in KINDS if key[1].startswith("acme/")]:
        del KINDS[key]
    for name in [name for name in sys.modules if name.split(".")[0] == "zoo_acme"]:
        del sys.modules[name]
    forget()
