"""A run whose model grows on one that another experiment trains first."""

import json

import pytest
import torch
import yaml

import zoo
from zoo.errors import UnknownName
from zoo.registry import resolve
from zoo.training.run import train


@pytest.fixture
def first(small, tmp_path, monkeypatch):
    """Names a small experiment `first`; returns where the runs of a root lie."""
    mapping = small("unused", trainer__steps=2, trainer__best="last")
    del mapping["run"]
    file = tmp_path / "conf" / "experiment" / "first.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(mapping))
    monkeypatch.setenv("ZOO_CONF_PATH", str(tmp_path / "conf"))
    return tmp_path / "runs"


def run(small, root, **changes):
    given = {"run__root": str(root), "model__bases": {"all": "experiment:first"}}
    given |= {"trainer__steps": 1, "trainer__best": "last", "trainable": ["head.*"], **changes}
    train(resolve("experiment", small(root / "second", **given)), quiet=True)
    return zoo.load(f"dir:{root / 'second'}")


@pytest.mark.parametrize("export", ["all", "trained"])
def test_one_command_makes_both_stages(first, small, export):
    model = run(small, first, export=export)
    before = zoo.load(f"dir:{first / 'first'}").state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (not name.startswith("head.")), name
    stage = {"all": f"dir:{first / 'first'}"}
    assert model.config.bases == (stage if export == "trained" else {})  # a whole model needs none
    asked = json.loads((first / "second" / "experiment.json").read_text())["config"]["model"]
    assert asked["bases"] == {"all": "experiment:first"}  # may be run again elsewhere


def test_a_stage_that_is_done_is_not_run_again(first, small):
    run(small, first)
    result = first / "first" / "result.json"
    before = result.stat().st_mtime_ns
    run(small, first, trainer__steps=2)
    assert result.stat().st_mtime_ns == before


def test_an_experiment_is_no_model(first, small, tmp_path):
    with pytest.raises(UnknownName, match="second"):
        run(small, tmp_path, model__bases={"all": "experiment:second"})
    with pytest.raises(UnknownName, match="experiment:first"):
        zoo.load("vit-digits", "backbone.depth=5", bases={"all": "experiment:first"}, partial=True)
