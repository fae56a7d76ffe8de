"""Names to mappings: files, defaults lists, clashes, aliases, environment."""

import os
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import zoo
from zoo.errors import ConfigError, PluginError, UnknownName, ZooError
from zoo.registry import find_node, forget, names, read_mapping, read_node


def said(function, *args, **kwargs):
    with pytest.raises(ZooError) as error:
        function(*args, **kwargs)
    return str(error.value)


# -- where names are -------------------------------------------------------------------------------


def test_a_file_is_a_name(conf):
    root = conf({"norm/soft.yaml": "kind: layer\neps: 0.1", "norm/lab/odd.yaml": "kind: rms"})
    assert {"soft", "lab/odd"} <= set(names("norm"))
    assert names("norm", "lab/*") == ["lab/odd"] and names("norm", "s?ft") == ["soft"]
    assert find_node("norm", "soft") == ("soft", root / "norm/soft.yaml")
    assert read_node("norm", "soft").eps == 0.1
    assert zoo.config("vit-digits", "backbone.norm=soft").backbone.norm.eps == 0.1


def test_hidden_and_private_files_are_no_names(conf):
    conf(
        {
            "norm/_base.yaml": "a: 1",
            "norm/.x.yaml": "",
            "norm/__pycache__/y.yaml": "",
            "norm/z.yml": "",
        }
    )
    assert not {"_base", ".x", "__pycache__/y", "z"} & set(names("norm"))


def test_several_folders(conf, tmp_path, monkeypatch):
    one, two = conf({"norm/a.yaml": "kind: rms"}, "one"), conf({"norm/b.yaml": "kind: rms"}, "two")
    monkeypatch.setenv("ZOO_CONF_PATH", f"{one}{os.pathsep}{two}")
    assert {"a", "b"} <= set(names("norm"))
    monkeypatch.setenv("ZOO_CONF_PATH", str(one))  # read anew without being told
    assert "a" in names("norm") and "b" not in names("norm")
    monkeypatch.setenv("ZOO_CONF_PATH", str(tmp_path / "none"))
    assert (
        said(names, "norm")
        == f"ZOO_CONF_PATH names {str(tmp_path / 'none')!r}, which is no folder."
    )


def test_a_name_in_two_places_is_an_error_that_names_both(conf):
    root = conf({"norm/rms.yaml": "kind: layer"})
    assert said(read_mapping, "norm", "rms") == (
        f"Two places provide norm 'rms': zoo and {root}; remove one."
    )
    with pytest.raises(PluginError):
        zoo.config("vit-digits", "backbone.norm=rms")
    assert zoo.config("vit-digits").zoo_kind == "vit"  # other names are not affected


def test_forget_sees_what_came(conf):
    root = conf({"norm/a.yaml": "kind: rms"})
    assert "later" not in names("norm")
    (root / "norm/later.yaml").write_text("kind: rms")
    forget()
    assert "later" in names("norm")


# -- old names -------------------------------------------------------------------------------------


def test_old_names_still_work_and_warn(conf):
    conf({"norm/new.yaml": "kind: rms", "aliases.yaml": "norm: {old: new, rms: new}"})
    with pytest.warns(DeprecationWarning, match=r"^norm 'old' is now called 'new'\.$"):
        assert read_node("norm", "old").zoo_kind == "rms"
    with pytest.warns(DeprecationWarning):
        assert zoo.config("vit-digits", "backbone.norm=old").backbone.norm.zoo_kind == "rms"
    assert "old" not in names("norm")


@pytest.mark.filterwarnings("error")
def test_an_alias_does_not_take_the_place_of_a_name(conf):
    conf({"norm/new.yaml": "kind: layer", "aliases.yaml": "norm: {rms: new}"})
    assert read_node("norm", "rms").zoo_kind == "rms"


@pytest.mark.parametrize("text", ["[a]", "norm: 3", "norm: [a, b]"])
def test_aliases_that_are_none(conf, text):
    root = conf({"aliases.yaml": text})
    assert said(read_node, "norm", "rms") == (
        f"{root / 'aliases.yaml'} is no mapping of groups to mappings of old names to new ones."
    )


# -- nodes that extend nodes -----------------------------------------------------------------------


BASES = {
    "model/base.yaml": "kind: vit\nclasses: 10\nbackbone: {depth: 2, width: 64}\n"
    "weights: {tag: {repo: a/b}}",
    "model/child.yaml": "defaults: [base]\nbackbone: {depth: 3}",
    "model/first.yaml": "defaults: [_self_, base]\nbackbone: {depth: 3}\npool: mean",
    "norm/soft.yaml": "kind: rms",
    "model/parts.yaml": "defaults:\n- base\n- /norm@backbone.norm: soft\n- _self_\n",
    "model/here.yaml": "defaults: [/model/child@_here_, _self_]\nclasses: 5",
    "model/lab/deep.yaml": "defaults: [/model/base@_here_]\nclasses: 7",
}


def test_a_node_lays_its_keys_over_its_base(conf):
    conf(BASES)
    assert read_mapping("model", "child")["backbone"] == {"depth": 3, "width": 64}
    assert read_mapping("model", "first") == {
        "kind": "vit", "classes": 10, "backbone": {"depth": 2, "width": 64}, "pool": "mean"
    }  # fmt: skip
    assert read_mapping("model", "parts")["backbone"]["norm"] == {"kind": "rms"}
    assert read_mapping("model", "here")["classes"] == 5
    assert read_mapping("model", "lab/deep")["classes"] == 7


def test_weights_are_never_inherited(conf):
    conf(BASES)
    assert list(zoo.config("base").weights) == ["tag"]
    for child in ("child", "first", "parts", "here", "lab/deep"):
        assert zoo.config(child).weights == {}


@pytest.mark.parametrize("name", ["base", "child", "first", "parts", "here", "lab/deep"])
def test_hydra_composes_the_same(conf, name):
    root = conf(BASES)
    ours = read_mapping("model", name)
    GlobalHydra.instance().clear()
    (root / "main.yaml").write_text(f"defaults: [_self_, {{model: {name}}}]")
    with initialize_config_dir(str(root), version_base="1.3"):
        theirs = OmegaConf.to_container(compose("main"))["model"]
    if name != "base":
        assert theirs.pop("weights") == {"tag": {"repo": "a/b"}}  # which shipped nodes never extend
    assert ours == theirs


NONE_OF = (
    "is none of: base, /group/base@_here_, {/group@key: base}, {override /group: name}, _self_."
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defaults: [/model/base]", f"defaults entry '/model/base' {NONE_OF}"),
        ("defaults: [base@x]", f"defaults entry 'base@x' {NONE_OF}"),
        ("defaults: [/base@_here_]", f"defaults entry '/base@_here_' {NONE_OF}"),
        ("defaults: [{norm: rms}]", f"defaults entry {{'norm': 'rms'}} {NONE_OF}"),
        ("defaults: [{/norm: rms}]", f"defaults entry {{'/norm': 'rms'}} {NONE_OF}"),
        ("defaults: [{/norm@: rms}]", f"defaults entry {{'/norm@': 'rms'}} {NONE_OF}"),
        ("defaults: [{/norm@norm: null}]", f"defaults entry {{'/norm@norm': None}} {NONE_OF}"),
        ("defaults: [3]", f"defaults entry 3 {NONE_OF}"),
        ("defaults: base", "defaults is a list."),
        ("defaults: [this]", "the node extends itself by its defaults list."),
        ("defaults: [that]", "the node extends itself by its defaults list."),
        ("- kind", "a node is a mapping with a kind."),
        ("", "a node is a mapping with a kind."),
    ],
)
def test_what_no_reader_should_guess(conf, text, message):
    root = conf({"model/this.yaml": text, "model/that.yaml": "defaults: [this]"})
    assert said(read_mapping, "model", "this") == f"{root / 'model/this.yaml'}: {message}"


def test_a_base_that_is_missing(conf):
    conf({"model/this.yaml": "defaults: [vit-dgits]"})
    assert said(read_mapping, "model", "this").startswith(
        "Unknown model 'vit-dgits'. Did you mean 'vit-digits'?"
    )


def test_a_node_that_is_wrong_says_where(conf):
    conf({"model/this.yaml": "kind: vti", "model/that.yaml": "classes: 3"})
    assert said(zoo.config, "this") == "Unknown kind 'vti' of model. Did you mean 'vit'?"
    assert said(zoo.config, "that") == "model: a model needs a name or a kind, got {'classes': 3}."


@pytest.mark.parametrize("weights", ["[a]", "a", "{a: b}", "{a: {set: [x]}}"])
def test_weights_that_are_none(conf, weights):
    conf({"model/this.yaml": f"kind: vit\nweights: {weights}"})
    with pytest.raises(ConfigError, match=r"^weights"):
        zoo.config("this")


# -- what it costs ---------------------------------------------------------------------------------


def test_looking_costs_no_import():
    code = (
        "import sys, zoo, zoo.registry\n"
        "from zoo.registry.plugins import describe\n"
        "names = [name for group in zoo.registry.GROUPS for name in zoo.list(group)]\n"
        "zoo.list('*'); zoo.config('vit-digits'); zoo.info('vit-digits'); describe()\n"
        "heavy = ('torch', 'timm', 'torchaudio', 'hydra', 'omegaconf')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_many_threads_read_the_same(conf):
    from concurrent.futures import ThreadPoolExecutor

    conf(BASES)
    forget()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: zoo.config("child"), range(64)))
    assert all(config == found[0] for config in found)


def test_unknown_names_are_an_unknown_name():
    with pytest.raises(UnknownName):
        find_node("norm", "nope")
