"""The names timm/…, without timm."""

import subprocess
import sys
import warnings

import pytest
from zoo_timm import index, plugin

import zoo
from zoo.errors import ConfigError, UnknownName
from zoo.registry import names, parse_name, resolve, to_mapping
from zoo.registry.plugins import describe


def test_the_index_is_that_of_the_installed_timm():
    assert index.stale() == []


def test_the_index_counts_parameters():
    for name in ("resnet18", "vit_tiny_patch16_224", "convnext_atto", "test_nfnet"):
        assert plugin.parameters(f"timm/{name}") == index.count_parameters(name)


def test_a_stale_index_is_noticed(tmp_path, monkeypatch):
    text = plugin.INDEX.read_text(encoding="utf-8")
    stale = text.replace('"crop_pct": 0.95', '"crop_pct": 0.94', 1).replace(
        '"resnet18"', '"resnet17"'
    )
    (tmp_path / "index.json").write_text(stale, encoding="utf-8")
    monkeypatch.setattr(index, "INDEX", tmp_path / "index.json")
    assert {"resnet17", "resnet18"} < set(index.stale())


def test_listing_and_describing_import_neither_torch_nor_timm():
    code = (
        "import sys, zoo\nfrom zoo.registry.plugins import describe\n"
        "assert len(zoo.list('timm/*')) > 1300\n"
        "zoo.config('timm/resnet18.a1_in1k'); describe()\n"
        "assert 'ImageNet' not in str(zoo.info('timm/resnet18'))\n"
        "print([m for m in ('torch', 'timm', 'torchaudio', 'hydra') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_architecture_is_a_name():
    import timm

    assert names("model", "timm/*") == sorted(f"timm/{name}" for name in timm.list_models())
    assert not [name for name in names("model") if name.startswith("timm/")]


def test_every_name_has_a_config_that_is_stored_and_read():
    for name in names("model", "timm/*")[::5]:
        config = zoo.config(name)
        assert resolve("model", to_mapping(config), stored=True) == config
        assert f"timm/{config.architecture}" == name


def test_every_tag_brings_what_its_weights_require():
    import timm

    for name in (
        "resnet18",
        "convnext_base",
        "vit_base_patch16_clip_224",
        "mixer_b16_224",
        "hiera_tiny_224",
    ):
        tags = zoo.config(f"timm/{name}").weights
        assert set(tags) == {full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")}
        assert next(iter(tags)) == timm.get_pretrained_cfg(name).tag
        for tag, weights in tags.items():
            config, cfg = zoo.config(f"timm/{name}.{tag}"), timm.get_pretrained_cfg(f"{name}.{tag}")
            assert (weights.repo, weights.license) == (cfg.hf_hub_id, cfg.license)
            assert (weights.file, weights.format) == ("model.safetensors", "timm/native")
            assert config.classes == cfg.num_classes
            pixels = config.tokenizer
            assert (pixels.channels, *pixels.image) == cfg.input_size
            assert (pixels.mean, pixels.std) == (list(cfg.mean), list(cfg.std))
            assert (pixels.crop, pixels.interpolation) == (cfg.crop_pct, cfg.interpolation)
            assert pixels.resize == plugin.RESIZE[cfg.crop_mode]


def test_old_names_lead_to_the_weights_that_they_meant():
    with pytest.warns(
        DeprecationWarning, match=r"is now called 'timm/convnext_tiny\.fb_in22k_ft_in1k'"
    ):
        config = zoo.config("timm/convnext_tiny_in22ft1k")
    assert config.architecture == "convnext_tiny"
    assert next(iter(config.weights)) == "fb_in22k_ft_in1k"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for old, new in plugin.read_index()["old"].items():
            architecture, _, tag = new.partition(".")
            config = zoo.config(f"timm/{old}")
            assert config.architecture == architecture
            assert not tag or next(iter(config.weights), tag) == tag
        assert zoo.config("timm/vit_base_patch16_224_sam").weights == {}  # not on any hub


def test_what_is_not_there_is_said_with_the_nearest():
    with pytest.raises(UnknownName) as error:
        zoo.config("timm/resnet81.a1_in1k")
    assert str(error.value) == (
        "Unknown model 'timm/resnet81'. Did you mean 'timm/resnet18'? "
        f"({len(names('model', 'timm/*'))} names: zoo list model 'timm/*')"
    )
    with pytest.raises(UnknownName) as error:
        zoo.config("timm/resnet18.a1_in1kk")
    assert str(error.value) == "'timm/resnet18' has no weights 'a1_in1kk'. Did you mean 'a1_in1k'?"
    assert parse_name("timm/resnet18.a1_in1k") == zoo.registry.Name("", "timm/resnet18", "a1_in1k")


def test_beside_another_timm_it_asks_timm_itself(monkeypatch):
    del_resnet = {**plugin.read_index(), "models": {}, "timm": "0.0.1"}
    monkeypatch.setattr(plugin, "read_index", lambda: del_resnet)
    config = zoo.config("timm/resnet18.a3_in1k")
    assert config.tokenizer.image == [160, 160] and config.card.license == "apache-2.0"
    with pytest.raises(UnknownName):
        zoo.config("timm/resnet81")


NO_NAME = "architecture: {!r} is no name of timm's, such as resnet50."
NOT_FOR = "options.{}: is not for a config to choose."


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("architecture=hf-hub:org/x", NO_NAME.format("hf-hub:org/x")),
        ("architecture=local-dir:/x", NO_NAME.format("local-dir:/x")),
        ("architecture=../x", NO_NAME.format("../x")),
        ("options={num_classes: 3}", "options.num_classes: use the key 'classes' instead."),
        ("options={img_size: 64}", "options.img_size: use the key 'tokenizer.image' instead."),
        ("options={checkpoint_path: /x.pt}", NOT_FOR.format("checkpoint_path")),
        ("options={pretrained: true}", NOT_FOR.format("pretrained")),
        ("options={pretrained_cfg: {file: x}}", NOT_FOR.format("pretrained_cfg")),
        ("options={_x: 1}", NOT_FOR.format("_x")),
        ("options={a: {b: 1}}", "options.a: expected a plain value or a list of them."),
        ("labels=[a]", "labels: 1 names for 1000 classes."),
        ("tokenizer.mean=[1,2]", "tokenizer.mean: needs 1 or 3 numbers, one for each channel."),
        ("tokenizer.crop=0", "tokenizer.crop: must be more than 0.0, got 0.0."),
    ],
)
def test_a_config_may_not_say_everything(key, message):
    with pytest.raises(ConfigError) as error:
        zoo.config("timm/resnet18", key)
    assert str(error.value) == message


def test_the_plugin_is_whole():
    (report,) = [report for report in describe() if report.name == "timm"]
    assert report.problems == () and report.state == "ok"
    assert report.adds == {"model": len(plugin.read_index()["models"]), "tokenizer": 1, "format": 1}
    assert report.kinds == {"model": ("timm/backbone",), "tokenizer": ("timm/pixels",)}
    assert report.distribution.startswith("zoo-timm ")
