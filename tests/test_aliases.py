"""Other spellings of names. conf/aliases.yaml: every old name leads to a name that is there, and
hides none."""

import pytest

from zoo.cli.train import main
from zoo.errors import UnknownName
from zoo.registry import GROUPS, conf_dir, find_node, forget, parse_name, read_mapping
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
    import zoo

    (tmp_path / "aliases.yaml").write_text("model: {old-digits: vit-digits}\n")
    monkeypatch.setenv("ZOO_CONF_PATH", str(tmp_path))
    forget()
    try:
        with pytest.warns(DeprecationWarning, match="is now called 'vit-digits'"):
            assert zoo.config("old-digits") == zoo.config("vit-digits")
    finally:
        monkeypatch.undo()
        forget()


# -- hyphens and underscores -----------------------------------------------------------------------

EXPERIMENTS = ["gpt-stdlib", "bert-stdlib", "t5-stdlib", "ul2-stdlib", "xlnet-stdlib"]
EXPERIMENTS += ["prefix-stdlib", "numbers-en-de", "bert-finetune"]


@pytest.mark.parametrize(
    ("group", "text", "name"),
    [
        *(("experiment", text, text.replace("-", "_")) for text in EXPERIMENTS),
        ("experiment", "bert_stdlib", "bert_stdlib"),
        ("model", "bert_stdlib", "bert-stdlib"),
        ("position", "learned_grid", "learned-grid"),
    ],
)
def test_hyphens_and_underscores_are_one(group, text, name):
    assert find_node(group, text)[0] == name
    assert read_mapping(group, text) == read_mapping(group, name)
    assert parse_name(text, group).name == name


@pytest.mark.parametrize("words", [["experiment=bert-stdlib"], ["experiment=bert_stdlib"]])
def test_hydra_finds_an_experiment_by_both(words, capsys):
    assert main(["train", *words, "model=bert_stdlib", "--cfg", "job"]) == 0
    other = capsys.readouterr().out
    assert main(["train", "experiment=bert_stdlib", "model=bert-stdlib", "--cfg", "job"]) == 0
    assert capsys.readouterr().out == other


def test_two_names_that_differ_by_a_hyphen_are_two(monkeypatch, tmp_path):
    (tmp_path / "norm").mkdir()
    for name in ("my-norm_x", "my_norm-x"):
        (tmp_path / "norm" / f"{name}.yaml").write_text("kind: rms\n")
    monkeypatch.setenv("ZOO_CONF_PATH", str(tmp_path))
    assert find_node("norm", "my-norm_x")[0] == "my-norm_x"
    with pytest.raises(UnknownName, match="my-norm-x"):
        find_node("norm", "my-norm-x")
