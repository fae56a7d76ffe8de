"""Optimisers: what decays, what is frozen, timm's by name."""

import pytest
import torch
from torch import nn

import zoo
from zoo.errors import ConfigError
from zoo.nn.linear import Embedding, Linear
from zoo.registry import build, resolve
from zoo.training.optim import freeze, parameter_groups


def names_by_decay(model, **keys):
    config = resolve("optim", {"kind": "adamw", **keys})
    names = {id(p): n for n, p in model.named_parameters()}
    groups = parameter_groups(model, config)
    return {g["weight_decay"]: {names[id(p)] for p in g["params"]} for g in groups}


def test_norms_biases_and_embeddings_do_not_decay():
    model = zoo.create("vit-digits", "backbone.depth=1", "backbone.layer_scale=0.1", seed=0)
    found = names_by_decay(model, weight_decay=0.3)
    assert found[0.3] == {
        "tokenizer.weight",
        "backbone.layers.0.attention.qkv.weight",
        "backbone.layers.0.attention.out.weight",
        "backbone.layers.0.feedforward.up.weight",
        "backbone.layers.0.feedforward.down.weight",
        "head.weight",
    }
    everything = {name for name, _ in model.named_parameters()}
    assert found[0.0] == everything - found[0.3]


def test_embeddings_do_not_decay_wherever_they_come_from():
    model = nn.ModuleDict(
        {"a": Embedding(3, 4), "b": nn.Embedding(3, 4), "c": Linear(4, 4), "d": nn.Linear(4, 4)}
    )
    assert names_by_decay(model)[0.05] == {"c.weight", "d.weight"}


def test_patterns_change_what_decays():
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    found = names_by_decay(model, decay=["*.bias"], no_decay=["b.*"])
    assert found == {0.05: {"a.weight", "a.bias"}, 0.0: {"b.weight", "b.bias"}}


def test_frozen_parameters_are_in_no_group():
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    freeze(model, ["b.*"])
    assert names_by_decay(model) == {0.05: {"b.weight"}, 0.0: {"b.bias"}}
    assert not model["a"].weight.requires_grad
    with pytest.raises(ConfigError, match=r"no parameter matches 'a\.wieght'. Did you mean 'a\.w"):
        freeze(model, ["a.wieght"])


def step_of(node, **keys):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    config = resolve("optim", {"name": node, **keys})
    optimizer = build(config, groups=parameter_groups(model, config))
    before = model.weight.detach().clone()
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return type(optimizer).__name__, model.weight.detach() - before


def test_adamw_takes_its_settings():
    name, change = step_of("adamw", lr=0.01, weight_decay=0.0, betas=[0.5, 0.9])
    assert name == "AdamW" and torch.allclose(change, torch.full((2, 3), -0.01), atol=1e-6)


@pytest.mark.parametrize(
    ("node", "kind"),
    [("lion", "Lion"), ("lamb", "Lamb"), ("sgd", "SGD"), ("adafactor", "Adafactor")],
)
def test_timms_optimisers_by_name(node, kind):
    name, change = step_of(node)
    assert name.startswith(kind) and change.abs().max() > 0
    if node == "lion":
        assert torch.allclose(change.sign(), -torch.ones(2, 3))


def test_any_of_timms_by_its_name_there_with_options():
    name, _ = step_of("timm", algorithm="nadamw", options={"eps": 1e-6})
    assert name == "NAdamW"
    with pytest.raises(ConfigError, match=r"timm has no optimiser 'lionn'. Did you mean 'lion'"):
        step_of("timm", algorithm="lionn")
    with pytest.raises(ConfigError, match=r"lion cannot be made with options {'nonsense': 1}"):
        step_of("timm", options={"nonsense": 1})
