"""conf/aliases.yaml: every old name leads to a name that is there, and hides none."""

from zoo.registry import GROUPS, conf_dir
from zoo.registry.folders import aliases, index
from zoo.registry.yaml import read_yaml


def test_the_file_is_read():
    assert set(read_yaml(conf_dir() / "aliases.yaml")) <= set(GROUPS)


def test_every_alias_leads_somewhere():
    for group in GROUPS:
        for old, new in aliases(group).items():
            assert new in index(group), f"{group} {old!r} leads to {new!r}, which is not there"
            assert old not in index(group), f"{group} {old!r} is a name and an alias"


def test_an_alias_loads_what_it_means(monkeypatch, tmp_path):
    import pytest

    import zoo
    from zoo.registry import forget

    (tmp_path / "aliases.yaml").write_text("model: {old-digits: vit-digits}\n")
    monkeypatch.setenv("ZOO_CONF_PATH", str(tmp_path))
    forget()
    try:
        with pytest.warns(DeprecationWarning, match="is now called 'vit-digits'"):
            assert zoo.config("old-digits") == zoo.config("vit-digits")
    finally:
        monkeypatch.undo()
        forget()
