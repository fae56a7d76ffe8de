"""zoo plugins: origin and state of each."""

import sys
import types

import pytest


@pytest.fixture
def installed(monkeypatch):
    """Two plugins as if they were installed, one of them broken."""
    module = sys.modules["zoo.registry.plugins"]
    whole = module.Plugin("acme", "zoo_acme", "zoo-acme 0.1", location=None)
    broken = module.Plugin("bust", "zoo_bust", "zoo-bust 0.2", error="no package zoo_bust")
    monkeypatch.setattr(whole, "import_schemas", lambda: None, raising=False)
    monkeypatch.setattr(whole, "made_up_names", lambda group: [], raising=False)
    monkeypatch.setattr(whole, "formats", lambda: None, raising=False)
    found = {"acme": whole}

    def add_broken():
        found["bust"] = broken

    monkeypatch.setattr(module, "plugins", lambda: found)
    return add_broken


def test_lists_them(zoo_command, zoo_json, installed):
    assert zoo_command("plugins") == (0, "acme\tzoo-acme 0.1\tok\tno names yet\n", "")
    (row,) = zoo_json("plugins")
    assert row["name"] == "acme" and row["state"] == "ok"


def test_a_broken_one_sets_the_exit_code(zoo_command, zoo_json, installed):
    installed()
    code, out, _ = zoo_command("plugins")
    assert code == 1 and "bust\tzoo-bust 0.2\tbroken\tno package zoo_bust\n" in out
    rows = zoo_json("plugins", code=1)
    assert {row["name"]: row["state"] for row in rows} == {"acme": "ok", "bust": "broken"}


def test_none_installed(zoo_command, monkeypatch):
    monkeypatch.setattr(sys.modules["zoo.registry.plugins"], "plugins", dict)
    assert zoo_command("plugins") == (0, "no plugins installed\n", "")


def test_new_goes_to_the_scaffold(zoo_command, monkeypatch):
    seen = []
    stand_in = types.SimpleNamespace(main=lambda words: seen.append(words))
    monkeypatch.setitem(sys.modules, "zoo.cli.scaffold", stand_in)
    assert zoo_command("plugins", "new", "acme")[0] == 0
    assert zoo_command("plugins", "new", "acme", "--dir", "here")[0] == 0
    assert seen == [["acme"], ["acme", "--dir", "here"]]
    assert zoo_command("plugins", "new")[0] == 2
