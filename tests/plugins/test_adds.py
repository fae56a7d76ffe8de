"""A plugin can add each of the seven things, and an experiment that uses them."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import zoo
from zoo.errors import ConfigError
from zoo.registry import build, names, read_node, resolve, to_mapping
from zoo.registry.plugins import describe

NODES = [
    ("norm", "acme/half"),
    ("position", "acme/ramp"),
    ("attention", "acme/mean"),
    ("feedforward", "acme/line"),
    ("backbone", "acme/doubled"),
    ("tokenizer", "acme/flipped"),
    ("model", "acme/means"),
    ("model", "acme/tiny"),
    ("data", "acme/stripes"),
    ("objective", "acme/absolute"),
]


def test_everything_is_there(acme):
    (report,) = describe()
    assert report.problems == ()
    assert report.adds == {
        "model": 2, "tokenizer": 1, "backbone": 1, "norm": 1, "position": 1, "attention": 1,
        "feedforward": 1, "data": 1, "objective": 1, "experiment": 1, "format": 1,
    }  # fmt: skip
    assert sum(len(kinds) for kinds in report.kinds.values()) == 9


@pytest.mark.parametrize(("group", "name"), NODES)
def test_every_node_is_listed_read_and_written(acme, group, name):
    assert name in names(group)
    config = read_node(group, name)
    assert resolve(group, to_mapping(config), stored=True) == config


def swapped(*overrides):
    small = {"depth": 1, "width": 8, "position": "none"}
    model = zoo.create("vit-digits", {"backbone": small}, *overrides, seed=0)
    loss = model(torch.randn(2, 1, 32, 32)).logits.square().mean()
    loss.backward()
    return model


@pytest.mark.parametrize(
    ("key", "name", "where"),
    [
        ("norm", "acme/half", "backbone.final_norm"),
        ("position", "acme/ramp", "backbone.positions.0"),
        ("attention", "acme/mean", "backbone.layers.0.attention"),
        ("feedforward", "acme/line", "backbone.layers.0.feedforward"),
    ],
)
def test_its_parts_swap_into_our_models(acme, key, name, where):
    model = swapped("backbone.attention.heads=2", f"backbone.{key}={name}")
    part = model.get_submodule(where)
    assert type(part).__module__ == "zoo_acme.parts"
    assert all(p.grad is not None for p in part.parameters())


def test_keys_of_its_parts_are_checked(acme):
    with pytest.raises(ConfigError) as error:
        zoo.config("vit-digits", "backbone.norm={name: acme/half, facto: 2}")
    assert str(error.value) == (
        "backbone.norm.facto: 'acme/half' has no such key (given: 2). "
        "Did you mean 'factor'? It is a number."
    )
    with pytest.raises(ConfigError, match=r"^backbone\.norm\.factor: must be more than 0\.0"):
        zoo.config("vit-digits", "backbone.norm={name: acme/half, factor: 0}")


def test_its_backbone_and_tokenizer_stand_in_our_model(acme):
    model = swapped("backbone={kind: acme/doubled, depth: 1, width: 8, times: 3}")
    assert type(model.backbone).__name__ == "Doubled" and model.config.backbone.times == 3
    model = swapped("backbone.attention.heads=2", "tokenizer={kind: acme/flipped, image: [32, 32], "
                    "patch: [4, 4], channels: 1, mean: [0.5], std: [0.5]}")  # fmt: skip
    assert type(model.tokenizer).__name__ == "Flipped"


def test_its_model_is_stored_and_loaded(acme, tmp_path):
    model = zoo.create("acme/tiny", seed=0).eval()
    zoo.save(model, tmp_path)
    again = zoo.load(f"dir:{tmp_path}")
    x = torch.randn(2, 1, 8, 8)
    assert again.config.backbone.norm.factor == 0.25
    torch.testing.assert_close(again(x).logits, model(x).logits)
    info = zoo.info("acme/tiny")
    assert info.parts["backbone.norm"] == "zoo_acme.parts:Half" and info.parameters > 0


def test_what_it_stored_needs_it_again(acme, tmp_path, monkeypatch):
    zoo.save(zoo.create("acme/tiny", seed=0), tmp_path)
    monkeypatch.setenv("ZOO_PLUGINS", "other")
    with pytest.raises(ValueError) as error:
        zoo.load(f"dir:{tmp_path}")
    assert str(error.value).startswith(f"{tmp_path / 'config.json'}: ")
    assert str(error.value).endswith("ZOO_PLUGINS=other shuts out plugin 'acme'.")


def test_its_weight_format_is_read_and_written(acme, tmp_path):
    model = zoo.create("acme/means", classes=3, seed=0)
    zoo.save(model, tmp_path, format="acme/upper")
    stored = load_file(tmp_path / "model.safetensors")
    assert torch.equal(stored["HEAD.weight"], model.head.weight.T)
    again = zoo.load(f"dir:{tmp_path}")
    assert again.config.classes == 3 and torch.equal(again.head.weight, model.head.weight)


def test_its_data_and_objective_train_a_model(acme):
    data = build(read_node("data", "acme/stripes", ["count=6"]))
    objective = build(read_node("objective", "acme/absolute"))
    split = data.split("train")
    batch = {**split.batch(range(6)), "seeds": torch.arange(6), "valid": torch.ones(6)}
    model = zoo.create("acme/means", seed=0)
    losses = []
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(3):
        loss = objective(model, batch).value
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]


def test_its_experiment_runs(acme, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(acme.parent), "OMP_NUM_THREADS": "1"}
    words = ["experiment=acme/stripes", "trainer.steps=1", "optim.lr=0.1"]
    done = subprocess.run(
        [sys.executable, "-m", "zoo", "train", *words],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "eval/loss" in done.stdout
    assert sum(1 for _ in tmp_path.rglob("*.safetensors")) == 1


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("acme/uper", "Unknown format 'acme/uper'. Did you mean 'acme/upper'?"),
        ("transformers-gpt2", "Format 'transformers-gpt2' holds causal-lm models, not acme/means."),
    ],
)
def test_a_format_that_is_none_or_another_models(acme, tmp_path, weights, message):
    model = zoo.create("acme/means", seed=0)
    with pytest.raises(ValueError) as error:
        zoo.save(model, tmp_path / "x", format=weights)
    assert str(error.value) == message
    assert not (tmp_path / "x").exists()
