"""What every name that ships must satisfy."""

import contextlib
import dataclasses
import importlib

import pytest

import zoo
from zoo.errors import ConfigError, UnknownName
from zoo.registry import GROUPS, find_node, names, read_mapping, read_node, resolve, to_mapping
from zoo.registry.folders import aliases, conf_dir, index
from zoo.registry.nodes import kind_schema
from zoo.registry.schema import KINDS
from zoo.registry.yaml import read_yaml

NODES = [(g, n) for g in GROUPS for n in names(g) if "/" not in n]
for group in GROUPS:  # imports the schemas of every room
    with contextlib.suppress(UnknownName):
        kind_schema(group, "?")
OURS = {key: schema for key, schema in KINDS.items() if schema.__module__.startswith("zoo.")}


@pytest.mark.parametrize(("group", "name"), NODES)
def test_a_node_is_written_and_read_back_equal(group, name):
    config = read_node(group, name)
    mapping = to_mapping(config)
    assert resolve(group, mapping) == config
    assert resolve(group, mapping, stored=True) == config
    assert zoo.config(name, group=group) == config


@pytest.mark.parametrize("name", names("model"))
def test_every_weights_tag_gives_a_config(name):
    for tag, weights in zoo.config(name).weights.items():
        assert zoo.config(f"{name}.{tag}").weights[tag] == weights


@pytest.mark.parametrize(("group", "name"), NODES)
def test_no_node_inherits_weights_or_interpolates(group, name):
    file = find_node(group, name)[1]
    assert "${" not in file.read_text()
    for entry in (read_yaml(file) or {}).get("defaults", []):
        if entry != "_self_":  # Hydra would let them through, so shipped nodes do without
            base = entry if isinstance(entry, str) else next(iter(entry.values()))
            base = base.removeprefix(f"/{group}/").removesuffix("@_here_")
            if base in index(group):
                assert "weights" not in read_mapping(group, base), f"{file} extends {base}"


def test_aliases_lead_to_names_and_take_none():
    for group in GROUPS:
        for old, new in aliases(group).items():
            assert new in index(group) and old not in index(group)


def test_every_folder_is_a_group():
    folders = {f.name for f in conf_dir().iterdir() if f.is_dir() and not f.name.startswith("_")}
    assert folders - set(GROUPS) <= {"hydra"}


@pytest.mark.parametrize("key", sorted(OURS), ids="-".join)
def test_every_setting_says_what_it_means(key):
    schema = OURS[key]
    assert (schema.__doc__ or "").strip() and not schema.__doc__.startswith(f"{schema.__name__}(")
    for field in dataclasses.fields(schema):
        if field.init:
            assert field.metadata.get("doc"), f"{schema.__name__}.{field.name} has no comment"


@pytest.mark.parametrize("key", sorted(OURS), ids="-".join)
def test_every_default_obeys_its_schema(key):
    group, name = key
    try:
        config = resolve(group, {"kind": name})
    except ConfigError as error:
        assert any(words in str(error) for words in ("must be given", "nothing says"))
    else:
        assert resolve(group, to_mapping(config)) == config


@pytest.mark.parametrize("key", sorted(OURS), ids="-".join)
def test_every_kind_builds_something(key):
    module, _, name = OURS[key].zoo_builds.partition(":")
    assert module.startswith("zoo.")
    assert callable(getattr(importlib.import_module(module), name))
