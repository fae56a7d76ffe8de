"""Weights in timm's own layout: from its hub repositories, older layouts, and back."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import zoo
from zoo.errors import HubError, WeightsError, ZooError

TINY = "test_vit"  # 370 thousand parameters, 160 x 160
SWIN = {"window_size": 4, "depths": (1, 2, 1, 1), "embed_dim": 24, "img_size": 128}


def published(name, folder, **arguments):
    """A folder as timm pushes it to a hub, of new weights with a head that is not zero."""
    torch.manual_seed(0)
    model = timm.create_model(name, **arguments).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.02)
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return model


def same(ours, theirs, size):
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(ours(x).logits, theirs(x), rtol=1e-5, atol=1e-5)
    return True


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    from zoo.hub.server import running_hub

    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with running_hub(tmp_path / "hub") as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield url


def test_a_tag_loads_what_timm_published(hub, tmp_path):
    theirs = published(TINY, tmp_path / "theirs")
    zoo.push(tmp_path / "theirs", f"timm/{TINY}.r160_in1k")
    ours = zoo.load(f"timm/{TINY}")
    assert same(ours, theirs, (160, 160)) and not ours.training
    assert same(zoo.load(f"timm/{TINY}.r160_in1k"), theirs, (160, 160))
    assert same(zoo.load(f"hf:timm/{TINY}.r160_in1k"), theirs, (160, 160))
    assert (zoo.pull(f"timm/{TINY}") / "model.safetensors").is_file()
    with pytest.raises(HubError):
        zoo.load("timm/test_resnet")  # nobody pushed that one


def test_a_model_is_pushed_and_loaded_back(hub):
    model = zoo.create(f"timm/{TINY}", {"classes": 3, "labels": ["a", "b", "c"]}, seed=1).eval()
    zoo.push(model, "acme/mine")
    again = zoo.load("hf:acme/mine")
    assert again.config.labels == ["a", "b", "c"] and again.config.architecture == TINY
    x = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(again(x).logits, model(x).logits, rtol=1e-5, atol=1e-5)


def test_a_folder_of_timm_is_read(tmp_path):
    theirs = published("test_resnet", tmp_path, num_classes=4)
    ours = zoo.load(f"dir:{tmp_path}")
    assert ours.config.classes == 4 and same(ours, theirs, ours.config.tokenizer.image)
    cfg = theirs.pretrained_cfg
    assert ours.config.tokenizer.mean == list(cfg["mean"])
    assert ours.config.tokenizer.crop == cfg["crop_pct"]


def test_arguments_of_a_folder_of_timm_are_read(tmp_path):
    arguments = {**SWIN, "num_classes": 2, "in_chans": 1}
    theirs = published("swin_tiny_patch4_window7_224", tmp_path, **arguments)
    ours = zoo.load(f"dir:{tmp_path}")
    config = ours.config
    assert (config.classes, config.tokenizer.image) == (2, [128, 128])
    assert config.tokenizer.channels == 1 and len(config.tokenizer.mean) == 1
    assert config.options == {"window_size": 4, "depths": [1, 2, 1, 1], "embed_dim": 24}
    x = torch.randn(1, 1, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(ours(x).logits, theirs(x), rtol=1e-5, atol=1e-5)


def test_what_was_trained_here_opens_in_timm(tmp_path):
    model = zoo.create("timm/test_convnext", {"classes": 3, "drop_path": 0.1}, seed=1).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.02)
    zoo.save(model, tmp_path, format="timm/native")
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert same(model, theirs, (160, 160)) and theirs.num_classes == 3
    again = zoo.load(f"dir:{tmp_path}")
    assert again.config.drop_path == 0.1 and same(again, theirs, (160, 160))
    state, stored = model.network.state_dict(), load_file(tmp_path / "model.safetensors")
    assert state.keys() == stored.keys()
    assert all(torch.equal(stored[key], value) for key, value in state.items())


# -- older layouts ---------------------------------------------------------------------------------


def older(folder, change):
    """Rewrites the weights of a folder as an older timm stored them."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def test_tables_that_are_no_longer_stored(tmp_path):
    """Swin's files hold its masks and indices, which timm drops today."""
    theirs = published("swin_tiny_patch4_window7_224", tmp_path, **SWIN)

    def change(state):
        state["layers.1.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
        state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(
            16, 16, dtype=torch.int64
        )

    older(tmp_path, change)
    assert same(zoo.load(f"dir:{tmp_path}"), theirs, (128, 128))


def test_modules_that_were_renamed(tmp_path):
    """Facebook's ConvNeXt: stages and norms had other names."""
    theirs = published("convnext_atto", tmp_path, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))

    def change(state):
        for key in list(state):
            if key.startswith("head.fc"):
                state[key.replace("head.fc", "head")] = state.pop(key)
            elif key.startswith("head.norm"):
                state[key.replace("head.norm", "norm")] = state.pop(key)
        for key in list(state):
            old = key.replace("stem.", "downsample_layers.0.").replace(".mlp.fc1", ".pwconv1")
            old = old.replace(".mlp.fc2", ".pwconv2").replace("conv_dw", "dwconv")
            parts = old.split(".")
            if parts[0] == "stages" and parts[2] == "downsample":
                old = ".".join(["downsample_layers", parts[1], *parts[3:]])
            elif parts[0] == "stages":
                old = ".".join(["stages", parts[1], *parts[3:]])
            state[old] = state.pop(key)

    older(tmp_path, change)
    assert same(zoo.load(f"dir:{tmp_path}"), theirs, (64, 64))


def test_another_size_of_picture_is_interpolated_as_timm_does(tmp_path):
    published("eva02_tiny_patch14_224", tmp_path, depth=1, img_size=56, num_classes=3)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=84).eval()
    ours = zoo.load(f"dir:{tmp_path}", {"tokenizer.image": [84, 84]})
    assert same(ours, theirs, (84, 84))


def test_a_head_of_another_size_is_reported_and_can_be_new(tmp_path):
    published("test_resnet", tmp_path)
    with pytest.raises(WeightsError) as error:
        zoo.load(f"dir:{tmp_path}", classes=5)
    assert "(2 of wrong shape)" in str(error.value) and "network.fc.bias" in str(error.value)
    ours = zoo.load(f"dir:{tmp_path}", classes=5, partial=True)
    assert set(ours.load_report.new) == {"network.fc.weight", "network.fc.bias"}


def test_a_file_of_something_else_is_refused(tmp_path):
    published("test_resnet", tmp_path)
    older(tmp_path, lambda state: [state.pop(key) for key in list(state) if "layer1." in key])
    with pytest.raises(WeightsError, match=r"missing: network\.layer1\."):
        zoo.load(f"dir:{tmp_path}")


# -- configs of strangers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "hf-hub:evil/x"}, "No format reads architecture 'hf-hub:evil/x'."),
        ({"architecture": None}, "'' is no name of timm's"),
        ({"architecture": ["x"]}, "No format reads architecture"),
        ({"architecture": "no_such"}, "has no architecture 'no_such'"),
        ({"model_args": {"checkpoint_path": "/x"}}, "options.checkpoint_path: is not for a config"),
        ({"model_args": {"pretrained_cfg": {}}}, "options.pretrained_cfg: is not for a config"),
        ({"model_args": {"img_size": "big"}}, "tokenizer.image: expected a list of 2, got 'big'."),
        ({"model_args": [1]}, "'model_args' must be dict, got [1]."),
        ({"pretrained_cfg": {"crop_mode": "zoom"}}, "'crop_mode' or 'input_size' is none of"),
        ({"pretrained_cfg": {"input_size": [3]}}, "'crop_mode' or 'input_size' is none of"),
        ({"pretrained_cfg": {"label_offset": 1}}, "'label_offset' = 1 is not supported"),
        ({"pretrained_cfg": {"state_dict": {}}}, "'state_dict' is not known to format"),
        ({"surprise": 1}, "'surprise' is not known to format 'timm/native'"),
    ],
)
def test_a_config_cannot_choose_code_or_files(tmp_path, change, message):
    config = {"architecture": "test_resnet", "num_classes": 3, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    save_file({"fc.bias": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ZooError) as error:
        zoo.load(f"dir:{tmp_path}")
    assert message in str(error.value)
