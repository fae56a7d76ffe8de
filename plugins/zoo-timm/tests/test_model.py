"""The models are timm's own, number by number, and speak as zoo's do."""

# b batch, n tokens, d width

import copy

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from zoo_timm.model import TimmBackbone

import zoo
from zoo.errors import ConfigError, UnknownName
from zoo.models.base import build_empty
from zoo.models.vit.model import ImageOutput

# One of each family, small: convolutions, depthwise, ViT, windows, inverted residuals, MLP-Mixer,
# a conv head behind the pool, a distilled ViT, several scales at once, relative positions.
SMALL = {
    "resnet18": (64, {}),
    "convnext_atto": (64, {}),
    "vit_tiny_patch16_224": (64, {}),
    "swin_tiny_patch4_window7_224": (128, {"window_size": 4, "depths": [1, 1, 1, 1]}),
    "efficientnet_b0": (64, {}),
    "mixer_s16_224": (64, {}),
    "mobilenetv4_conv_small": (64, {}),
    "deit_tiny_distilled_patch16_224": (64, {}),
    "coat_tiny": (64, {}),
    "efficientvim_m1": (64, {}),
    "levit_128s": (64, {}),
    "test_vit3": (160, {}),
}


def keys(name):
    size, options = SMALL[name]
    return {"tokenizer.image": [size, size], "options": options}


def reference(name, seed, **more):
    size, options = SMALL[name]
    fixed = {"img_size": (size, size)} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    torch.manual_seed(seed)
    return timm.create_model(name, **fixed, **options, **more)


def shaken(*models):
    """Moves every weight of equal models by the same noise: new heads are often all zero."""
    for model in models:
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.add_(noise, alpha=0.02)
    return models


def pixels_of(name, batch=2):
    size = SMALL[name][0]
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", SMALL)
def test_outputs_equal_those_of_timm(name):
    ours = zoo.create(f"timm/{name}", keys(name), seed=7)
    theirs = reference(name, 7)
    state = {key.removeprefix("network."): value for key, value in ours.state_dict().items()}
    assert all(torch.equal(state[key], value) for key, value in theirs.state_dict().items())
    shaken(ours, theirs)
    ours.eval(), theirs.eval()
    x = pixels_of(name)
    with torch.no_grad():
        output, features = ours(x), theirs.forward_features(x)
        assert torch.equal(output.logits, theirs(x)) and output.logits.std() > 0
        assert torch.equal(output.pooled, theirs.forward_head(features, pre_logits=True))
        maps = theirs.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)[0]
        patches = ours.patch_tokens(x)
    assert torch.equal(patches, maps.flatten(2).mT)
    assert isinstance(output, ImageOutput) and output.hidden.ndim == 3
    if torch.is_tensor(features) and features.ndim == 3:
        assert torch.equal(output.hidden, features)
    assert tuple(patches.shape[1:]) == ours.patch_shape() and not ours.training
    with torch.device("meta"):
        assert tuple(patches.shape[1:]) == build_empty(ours.config).patch_shape()


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "resnet18"]
)
def test_patch_tokens_of_a_layer(name):
    model = shaken(zoo.create(f"timm/{name}", keys(name), seed=0))[0].eval()
    x = pixels_of(name)
    with torch.no_grad():
        levels = model.network.forward_intermediates(x, intermediates_only=True)
        for layer in (0, -1, -2, len(levels) - 1):
            tokens = model.patch_tokens(x, layer)
            assert torch.equal(tokens, levels[layer].flatten(2).mT)
            assert tuple(tokens.shape[1:]) == model.patch_shape(layer)
    for layer in (len(levels), -len(levels) - 1):
        with pytest.raises(
            ConfigError, match=rf"^layer: {layer} is none of the {len(levels)} levels\.$"
        ):
            model.patch_tokens(x, layer)


def test_patch_tokens_of_several_layers():
    """Side by side in the order asked for, whatever timm's own order is."""
    model = zoo.create("timm/test_vit", seed=0)
    x = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        apart = [model.patch_tokens(x, layer) for layer in (-1, 1)]
        assert torch.equal(model.patch_tokens(x, [-1, 1]), torch.cat(apart, -1))
    assert model.patch_width([-1, 1]) == 2 * model.patch_width(-1)
    with pytest.raises(ConfigError, match="levels of different sizes"):
        zoo.create("timm/test_resnet", seed=0).patch_tokens(x, [0, -1])


def test_hidden_is_patch_tokens_for_plain_stacks():
    for name, prefix in (("vit_tiny_patch16_224", 1), ("convnext_atto", 0), ("mixer_s16_224", 0)):
        model = shaken(zoo.create(f"timm/{name}", keys(name), seed=0))[0].eval()
        with torch.no_grad():
            x = pixels_of(name)
            hidden, patches = model(x).hidden[:, prefix:], model.patch_tokens(x)
        assert hidden.shape == patches.shape
    assert torch.equal(hidden, patches)


def test_what_is_stored_is_the_same_model(tmp_path):
    for name in ("swin_tiny_patch4_window7_224", "levit_128s", "convnext_atto"):
        model = shaken(zoo.create(f"timm/{name}", keys(name), seed=0))[0].eval()
        model.config.labels = [f"c{i}" for i in range(1000)]
        zoo.save(model, tmp_path / name)
        again = zoo.load(f"dir:{tmp_path / name}")
        assert (again.config.tokenizer, again.config.labels) == (
            model.config.tokenizer,
            model.config.labels,
        )
        x = pixels_of(name)
        with torch.no_grad():
            torch.testing.assert_close(again(x).logits, model(x).logits, rtol=1e-5, atol=1e-5)


def test_new_classes_keep_the_rest(tmp_path):
    model = shaken(zoo.create("timm/resnet18", keys("resnet18"), seed=0))[0]
    zoo.save(model, tmp_path)
    again = zoo.load(f"dir:{tmp_path}", classes=3, partial=True, seed=5)
    assert set(again.load_report.new) == {"network.fc.weight", "network.fc.bias"}
    assert torch.equal(again.network.conv1.weight, model.network.conv1.weight)
    fresh = reference("resnet18", 5, num_classes=3)
    assert torch.equal(again.network.fc.weight, fresh.fc.weight)


def test_tokens_that_timm_alone_can_initialise_are_new_too(tmp_path):
    model = zoo.create("timm/test_vit3", keys("test_vit3"), seed=0)
    zoo.save(model, tmp_path)
    again = zoo.load(f"dir:{tmp_path}", {"options.reg_tokens": 4}, partial=True)
    assert "network.reg_token" in again.load_report.new
    assert 0 < again.network.reg_token.abs().max() < 1e-4  # N(0, 1e-6)


def test_training_moves_running_statistics_once_and_reaches_every_weight():
    name = "mobilenetv4_conv_small"
    ours, theirs = (
        zoo.create(f"timm/{name}", keys(name), seed=0).train(),
        reference(name, 0).train(),
    )
    shaken(ours, theirs)
    x = pixels_of(name, 4)
    loss = ours(x).logits.square().mean()
    loss.backward()
    theirs(x)
    for key, buffer in theirs.named_buffers():
        assert torch.equal(dict(ours.network.named_buffers())[key], buffer), key
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.parameters())


def test_keys_of_the_node_reach_timm():
    config = {
        "classes": 5,
        "pool": "max",
        "dropout": 0.25,
        "drop_path": 0.1,
        "tokenizer.channels": 1,
    }
    grey = {"tokenizer.mean": [0.5], "tokenizer.std": [0.5]}
    model = zoo.create(
        "timm/vit_tiny_patch16_224", keys("vit_tiny_patch16_224"), config, grey, seed=0
    )
    network = model.network
    assert (network.num_classes, network.global_pool, network.head_drop.p) == (5, "max", 0.25)
    assert network.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)
    assert network.patch_embed.proj.in_channels == 1 and network.patch_embed.img_size == (64, 64)
    image = np.zeros((20, 30), np.uint8)
    assert len(model.classify(image, top=9)) == 5


def test_verbs():
    model = zoo.create("timm/resnet18", keys("resnet18"), seed=0)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8))
    (best, *_), other = model.classify([image, image], top=3)
    assert best == other[0] and best.label != str(best.index)  # ImageNet's names
    assert model.embed(image).shape == (512,) and model.embed([image, image]).shape == (2, 512)
    features = zoo.create("timm/resnet18", keys("resnet18"), classes=0, seed=0)
    assert features(pixels_of("resnet18")).logits is None
    with pytest.raises(ConfigError, match="has no classes"):
        features.classify(image)
    with pytest.raises(ConfigError, match="do not show where they look"):
        model.attention_maps(image)


def test_units_hold_every_weight_once():
    for name in ("vit_tiny_patch16_224", "resnet18", "swin_tiny_patch4_window7_224"):
        model = build_empty(zoo.config(f"timm/{name}", keys(name)))
        units = model.fsdp_units()
        held = [id(p) for unit in units for p in unit.parameters()]
        assert len(held) == len(set(held)) and len(units) >= 6
        inside = sum(p.numel() for unit in units for p in unit.parameters())
        assert inside > 0.9 * sum(p.numel() for p in model.parameters())


def test_a_copy_is_a_model_of_its_own():
    model = zoo.create("timm/test_vit3", keys("test_vit3"), seed=0)
    other = copy.deepcopy(model)
    before = model.network.patch_embed.proj.weight.clone()
    other.network.patch_embed.proj.reset_parameters()
    assert torch.equal(model.network.patch_embed.proj.weight, before)
    assert not torch.equal(other.network.patch_embed.proj.weight, before)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"architecture": "resnet81"}, UnknownName, r"no architecture 'resnet81'\. Did you mean"),
        ({"options.colour": 3}, ConfigError, r"cannot build resnet18 with .*colour=3:.*unexpected"),
        ({"pool": "nope"}, ConfigError, r"cannot build resnet18 with .*global_pool='nope'"),
    ],
)  # fmt: skip
def test_what_timm_does_not_take(overrides, error, message):
    with pytest.raises(error, match=message):
        zoo.create("timm/resnet18", overrides)


def test_an_encoder_that_does_not_pool_says_so():
    model = build_empty(zoo.config("timm/qwen3_vit_88m_enc", {"tokenizer.image": [64, 64]})).eval()
    output = model(torch.zeros(1, 3, 64, 64, device="meta"))
    assert output.logits is None and output.hidden.shape[0] == 1
    with pytest.raises(ConfigError, match="does not pool; use hidden or patch_tokens"):
        output.pooled  # noqa: B018


def test_it_stands_where_a_vision_backbone_is_asked_for():
    """A model that takes any vision model as its part, as LLaVA does."""
    from dataclasses import dataclass

    from zoo.models.schema import ModelConfig
    from zoo.registry import build, kind, part, resolve
    from zoo.registry.schema import KINDS

    @kind("model", "test-composite", builds="nowhere:Nothing")
    @dataclass(kw_only=True)
    class Composite(ModelConfig):
        vision: ModelConfig = part("model", "vit-digits", "any vision model")

    try:
        for vision in (
            "vit-digits",
            {"name": "timm/resnet18", "tokenizer": {"image": [64, 64]}},
            {"name": "timm/vit_tiny_patch16_224.augreg_in21k", "tokenizer": {"image": [64, 64]}},
        ):
            config = resolve("model", {"kind": "test-composite", "vision": vision})
            with torch.device("meta"):
                model = build(config.vision)
            tokens, width = model.patch_shape(-2)
            channels, size = config.vision.tokenizer.channels, config.vision.tokenizer.image
            x = torch.zeros(3, channels, *size, device="meta")
            assert model.patch_tokens(x, -2).shape == (3, tokens, width)
        assert config.vision.classes == 21843 and isinstance(model, TimmBackbone)
    finally:
        del KINDS["model", "test-composite"]
