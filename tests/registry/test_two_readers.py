"""One file, two readers: for every shipped node Hydra and zoo.registry give the same typed config.

Composing through Hydra's API costs 60 to 100 ms, so nodes are composed by Hydra's loader without
its own configuration (a few ms each); a node of every group goes through the API as well.
"""

from pathlib import Path

import hydra
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from zoo.cli.train import main
from zoo.registry import conf_dir, read_node, resolve_mapping
from zoo.registry.folders import GROUPS, index
from zoo.registry.nodes import with_required

# a node that extends another one comes after it with or without `_self_`
pytestmark = pytest.mark.filterwarnings("ignore:.*Defaults list is missing `_self_`")

NODES = [
    (group, name)
    for group in GROUPS
    for name, places in sorted(index(group).items())
    if places[0][1].is_relative_to(conf_dir())
]


@pytest.fixture(scope="module")
def compose():
    """Returns a function: the mapping that Hydra makes of a node or a primary configuration."""
    hydra.version.setbase("1.3")
    loader = ConfigLoaderImpl(create_config_search_path(str(conf_dir())))
    files = CachingConfigRepository(loader.repository)

    def mapping(config_name: str, *overrides: str) -> dict:
        words = hydra.core.override_parser.overrides_parser.OverridesParser.create()
        entries = create_defaults_list(
            repo=files,
            config_name=config_name,
            overrides_list=words.parse_overrides(list(overrides)),
            prepend_hydra=bool(overrides),
            skip_missing=False,
        )
        cfg = loader._compose_config_from_defaults_list(entries.defaults, files)
        ours = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        return OmegaConf.to_container(ours, resolve=True)

    return mapping


def finished(group: str, mapping: dict):
    """What `zoo train` makes of a composed node: the keys that its weights require, then types."""
    return resolve_mapping(group, with_required(mapping) if group == "model" else mapping)


@pytest.mark.parametrize(("group", "name"), [n for n in NODES if n[0] != "experiment"])
def test_a_node_is_the_same_to_both(compose, group, name):
    assert finished(group, compose(f"{group}/{name}")[group]) == read_node(group, name)


@pytest.mark.parametrize("name", [name for group, name in NODES if group == "experiment"])
def test_an_experiment_is_the_same_to_both(compose, name):
    composed = compose("train", f"experiment={name}")
    composed["model"] = with_required(composed["model"])
    assert resolve_mapping("experiment", composed) == read_node("experiment", name)


def test_hydras_own_api_agrees(compose):
    first = {}
    for group, name in NODES:
        first.setdefault(group, name)
    first.pop("experiment")
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            words = [f"+{group}={name}" for group, name in first.items()]
            cfg = OmegaConf.to_container(hydra.compose(overrides=words), resolve=True)
    finally:
        GlobalHydra.instance().clear()
    for group, name in first.items():
        assert finished(group, cfg[group]) == read_node(group, name), (group, name)


OVERRIDES = [
    ["model.backbone.depth=3"],
    ["model.backbone.position=rope", "model.backbone.position.theta=5"],
    ["model.backbone.position={name: rope, theta: 5}"],
    ["model.backbone.norm={kind: rms}", "+model.backbone.norm.eps=1e-5"],
    ["model.backbone.feedforward.activation=relu", "trainer.steps=null", "++trainer.epochs=2"],
    ["optim.betas=[0.5,0.6]", "run.dir='a b'", "trainer.clip=null", "trainable=[head.*]"],
    ["model.tokenizer.mean=[0.1]", "data.augment.flip=true", "seed=7"],
]


@pytest.mark.parametrize("words", OVERRIDES, ids=" ".join)
def test_values_are_laid_the_same_way(words, monkeypatch):
    seen = []
    monkeypatch.setattr("zoo.training.run.train", lambda config, words: stop(seen.append(config)))
    with pytest.raises(InterruptedError):
        main(["train", "experiment=digits_vit", *words])
    assert seen == [read_node("experiment", "digits_vit", words)]


def stop(_):
    raise InterruptedError


def test_every_shipped_node_was_compared():
    files = {
        path.relative_to(conf_dir()).with_suffix("").as_posix()
        for path in Path(conf_dir()).rglob("*.yaml")
    }
    primary = {"train", "eval", "aliases", "checksums"}
    assert files - primary == {f"{group}/{name}" for group, name in NODES}
