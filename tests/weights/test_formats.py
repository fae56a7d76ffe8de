"""Finding the format of a public config, and reading configs so that nothing is ignored unseen."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

from zoo.errors import ConfigError, PluginError, UnknownName
from zoo.weights import formats as room
from zoo.weights.formats import Format, format_for, formats, register_format
from zoo.weights.formats.keys import Keys
from zoo.weights.map import Rename, WeightMap

# by its path: the package has a function of the same name
PLUGINS = importlib.import_module("zoo.registry.plugins")


def make(name: str, **claims: tuple[str, ...]) -> Format:
    return Format(
        name=name,
        kind="toy",
        read_config=lambda content, names: {"width": content["hidden_size"]},
        write_config=lambda config: {"hidden_size": config["width"]},
        weight_map=lambda config: WeightMap([Rename("a", "b")]),
        **claims,
    )


class FakePlugin:
    def __init__(self, declared: list[Format] | PluginError, distribution: str) -> None:
        self.declared, self.distribution = declared, distribution

    def formats(self) -> ModuleType:
        if isinstance(self.declared, PluginError):
            raise self.declared
        module = ModuleType("fake")
        module.FORMATS = self.declared
        return module


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No shipped format, no plugin: only what a test adds."""
    monkeypatch.setattr(room, "_shipped", list)
    monkeypatch.setattr(room, "_REGISTERED", [])
    install(monkeypatch)


def install(monkeypatch, *plugins: FakePlugin) -> None:
    found = {plugin.distribution: plugin for plugin in plugins}
    monkeypatch.setattr(PLUGINS, "plugins", lambda: found)


def test_a_format_is_found_by_model_type_or_architecture():
    text = register_format(make("gpt", model_types=("gpt2", "gpt3")))
    image = register_format(make("timm", architectures=(r"vit_\w+", "deit3?_.*")))
    assert format_for({"model_type": "gpt3"}) is text
    assert format_for({"architecture": "vit_tiny_patch16"}) is image
    assert format_for({"model_type": "gpt2", "architecture": "vit_b"}) is text
    assert formats() == {"gpt": text, "timm": image}


def test_what_nothing_reads_is_named_with_the_nearest():
    register_format(make("gpt", model_types=("gpt2", "llama")))
    with pytest.raises(UnknownName, match=r"model_type 'lama'. Did you mean 'llama'\?"):
        format_for({"model_type": "lama"})
    with pytest.raises(UnknownName, match=r"model_type 'xyz'. Readable: gpt2, llama."):
        format_for({"model_type": "xyz"})
    with pytest.raises(UnknownName, match="architecture 'resnet50'"):
        format_for({"architecture": "resnet50"})
    with pytest.raises(UnknownName, match="names no model"):
        format_for({"hidden_size": 3})
    for hostile in (["gpt2"], {"a": 1}, 3, None, "x" * 10_000):
        with pytest.raises(UnknownName) as caught:
            format_for({"model_type": hostile})
        assert len(str(caught.value)) < 200


def test_two_claims_are_an_error_that_names_both():
    register_format(make("one", model_types=("gpt2",)))
    with pytest.raises(PluginError, match=r"model_type 'gpt2': one \(zoo\) and two \(acme 1\)"):
        room._REGISTERED[:] = [(room._REGISTERED[0][0], "zoo")]
        register_format(make("two", model_types=("gpt2",)), "acme 1")
    assert list(formats()) == ["one"], "the refused one must not stay"
    with pytest.raises(PluginError, match="format name 'one'"):
        register_format(make("one", model_types=("bert",)))


def test_registering_twice_is_once():
    chosen = make("one", model_types=("gpt2",))
    assert register_format(chosen) is register_format(chosen)
    assert list(formats()) == ["one"]


def test_two_patterns_that_fit_are_not_chosen_from():
    register_format(make("one", architectures=("vit_.*",)))
    register_format(make("two", architectures=(".*_tiny",)))
    with pytest.raises(PluginError, match="Several formats read architecture 'vit_tiny': one and"):
        format_for({"architecture": "vit_tiny"})


def test_formats_of_plugins(monkeypatch):
    install(monkeypatch, FakePlugin([make("acme", model_types=("acme-net",))], "zoo-acme 0.1"))
    assert format_for({"model_type": "acme-net"}).name == "acme"
    other = FakePlugin([make("other", model_types=("acme-net",))], "zoo-fork 2")
    install(monkeypatch, *PLUGINS.plugins().values(), other)
    with pytest.raises(PluginError, match=r"acme \(zoo-acme 0.1\) and other \(zoo-fork 2\)"):
        formats()


def test_a_broken_plugin_is_named_where_its_format_is_missed_and_breaks_nothing_else(monkeypatch):
    register_format(make("gpt", model_types=("gpt2",)))
    install(monkeypatch, FakePlugin(PluginError("Plugin 'acme' is broken: no module x"), "acme 1"))
    assert format_for({"model_type": "gpt2"}).name == "gpt"
    with pytest.raises(UnknownName, match="Plugin 'acme' is broken: no module x"):
        format_for({"model_type": "acme-net"})


def test_shipped_formats_are_found_without_torch_and_clash_with_nothing():
    code = (
        "import sys, os; os.environ['ZOO_PLUGINS'] = 'off';"
        "from zoo.weights.formats import formats; found = formats();"
        "assert all(name == form.name for name, form in found.items());"
        "heavy = {'torch', 'numpy', 'timm', 'transformers', 'hydra'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class TestKeys:
    """Reading a public config: every key must be asked for."""

    def test_what_nobody_asked_for_is_refused_by_name(self):
        keys = Keys({"hidden_size": 8, "alibi": True, "prefix_lm": [1] * 999})
        assert keys.take("hidden_size", 4) == 8
        with pytest.raises(
            ConfigError, match=r"'alibi', 'prefix_lm' is not known to .* 'x'"
        ) as caught:
            keys.finish("x")
        assert len(str(caught.value)) < 250

    def test_defaults_types_and_required_keys(self):
        keys = Keys({"a": None, "b": "8", "c": True, "d": 2})
        assert keys.take("a", 3) == 3 and keys.take("absent", 3) == 3
        assert keys.take("d", 0.5) == 2.0 and isinstance(keys.take("d", 0.5), float)
        for key in ("b", "c"):
            with pytest.raises(ConfigError, match=rf"'{key}' must be int, got"):
                keys.take(key, 4)
        with pytest.raises(ConfigError, match="'hidden_size' is missing"):
            keys.take("hidden_size")
        keys.finish("x")

    def test_one_value_only(self):
        keys = Keys({"alibi": False, "norm": "layer", "scale": 1.0})
        keys.only("alibi", False, None)
        keys.only("absent", 5)
        keys.only("scale", 1)
        with pytest.raises(ConfigError, match=r"'norm' = 'layer' is not supported .*only 'rms'"):
            keys.only("norm", "rms")

    def test_bookkeeping_and_what_changes_nothing(self):
        keys = Keys({"model_type": "x", "transformers_version": "5", "dropout": 0.1})
        keys.ignore_generic()
        keys.ignore("dropout", "not there")
        keys.finish("x")
        decoder = Keys({"is_decoder": True})
        with pytest.raises(ConfigError, match="'is_decoder' = True is not supported"):
            decoder.ignore_generic()

    def test_sections_are_read_like_the_whole(self):
        keys = Keys({"vision_config": {"width": 8, "odd": 1}, "text_config": 3})
        vision = keys.section("vision_config")
        assert vision.take("width", 4) == 8
        with pytest.raises(ConfigError, match=r"config.json: vision_config: 'odd'"):
            vision.finish("x")
        with pytest.raises(ConfigError, match=r"'text_config' must be dict"):
            keys.section("text_config")
