"""zoo list, info, cfg: what there is."""

import json

import pytest
import yaml

import zoo
from zoo.cli import output
from zoo.cli.commands import list as list_command
from zoo.registry import GROUPS, resolve


def test_list_prints_one_name_per_line(zoo_command):
    code, out, err = zoo_command("list")
    assert (code, out.splitlines(), err) == (0, zoo.list(), "")
    assert zoo_command("list", "vit-d*")[1] == "vit-digits\n"
    assert zoo_command("list", "norm")[1].splitlines() == zoo.list("norm")
    assert zoo_command("list", "norm", "s*")[1] == "scale\n"
    assert zoo_command("list", "nothing*")[1] == ""


def test_list_as_json(zoo_json):
    rows = {row["name"]: row for row in zoo_json("list")}
    assert [*rows] == zoo.list()
    row = rows["vit-base-16"]
    assert row["origin"] == "zoo" and row["kind"] == "vit" and row["title"] == "ViT-B/16"
    assert row["parameters"] == zoo.info("vit-base-16").parameters
    assert row["license"] == "apache-2.0" and isinstance(row["weights"], list)
    assert zoo_json("list", "position", "rope") == [
        {"name": "rope", "origin": "zoo", "kind": "rope"}
    ]


def test_list_on_a_terminal(zoo_command, monkeypatch):
    for module in (output, list_command):
        monkeypatch.setattr(module, "is_terminal", lambda stream=None: True)
    _, out, _ = zoo_command("list", "vit-b*")
    tags = [*zoo.config("vit-base-16").weights]
    assert "86.6 M" in out and "ViT-B/16" in out and f"{tags[0][:9]}" in out
    assert list_command._tags(["a", "b", "c"]) == "a +2" and list_command._tags([]) == ""
    _, out, _ = zoo_command("list", "norm")
    assert "kind" in out and "rms" in out


def test_list_groups(zoo_command, zoo_json):
    rows = zoo_json("list", "--groups")
    assert [row["group"] for row in rows] == [*GROUPS]
    assert {row["group"]: row["names"] for row in rows}["norm"] == len(zoo.list("norm"))
    assert len(zoo_command("list", "--groups")[1].splitlines()) == len(GROUPS)


def test_a_broken_node_hides_no_other(zoo_json, monkeypatch, tmp_path):
    from zoo.registry import forget

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "broken.yaml").write_text("kind: [")
    monkeypatch.setenv("ZOO_CONF_PATH", str(tmp_path))
    forget()
    try:
        rows = {row["name"]: row for row in zoo_json("list")}
    finally:
        monkeypatch.undo()
        forget()
    assert "broken.yaml" in rows["broken"]["error"] and "error" not in rows["vit-digits"]


def test_info_follows_every_part_to_its_code(zoo_command):
    code, out, _ = zoo_command("info", "vit-digits")
    assert code == 0
    assert f"{zoo.info('vit-digits').parameters:,}" in out
    assert "VisionTransformer" in out and "zoo/models/vit/model.py:" in out
    assert "backbone.attention.kernel\tSDPAKernel\t" in out


def test_info_takes_overrides(zoo_json):
    plain = zoo_json("info", "vit-digits")
    changed = zoo_json("info", "vit-digits", "backbone.depth=1", "backbone.position=rope")
    assert changed["parameters"] < plain["parameters"]
    assert changed["parts"]["backbone.position.0"] == "zoo.nn.position:RotaryPosition"


def test_info_of_a_part(zoo_command, zoo_json):
    code, out, _ = zoo_command("info", "rope")
    assert code == 0 and "Su et al. 2021" in out
    assert "theta\t10000.0\tbase of the frequencies" in out
    assert "fraction\t1.0\t" in out
    row = zoo_json("info", "rope", "theta=5", "--group", "position")
    assert row["keys"]["theta"]["value"] == 5 and row["kind"] == "rope"


def test_info_asks_which_group(zoo_command, zoo_json):
    both = [name for name in zoo.list("norm") if name in zoo.list("position")]
    assert not both or zoo_command("info", both[0])[0] == 2
    assert zoo_json("info", "layer", "--group", "norm")["group"] == "norm"


def test_cfg_prints_what_resolves_to_the_same(zoo_command, zoo_json):
    words = ["vit-digits", "backbone.position=rope"]
    typed = zoo.config(*words)
    _, out, _ = zoo_command("cfg", *words)
    assert resolve("model", yaml.safe_load(out)) == typed
    assert resolve("model", zoo_json("cfg", *words)) == typed


def test_cfg_of_another_group(zoo_command):
    _, out, _ = zoo_command("cfg", "position", "rope", "theta=7")
    assert yaml.safe_load(out)["theta"] == 7


@pytest.mark.parametrize("command", ["list", "info vit-digits", "cfg vit-digits"])
def test_json_is_json(command, zoo_command):
    _, out, _ = zoo_command(*command.split(), "--json")
    assert json.loads(out)
