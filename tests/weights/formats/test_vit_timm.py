"""timm's vision transformers: weights saved by timm, loaded here, written back, read again."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from timm.models._hub import save_for_hf

import zoo
from tests.weights.formats.vision import (
    EXACT,
    ROUGH,
    assert_same_files,
    deviation,
    pictures,
    randomise,
    relative_error,
    tensors,
)
from zoo.errors import ConfigError, WeightsError

SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 32}

# name -> (architecture, what differs from it): every axis that timm's class has and we claim
MODELS = {
    "odd heads, odd ratio, oblong picture and patch": (
        "vit_tiny_patch16_224",
        {"img_size": (32, 48), "patch_size": (8, 16), "embed_dim": 36, "depth": 3, "num_heads": 3,
         "mlp_ratio": 2.3, "num_classes": 7},
    ),
    "registers, layer scale, no head": (
        "vit_base_patch14_reg4_dinov2",
        {"embed_dim": 40, "depth": 2, "num_heads": 5, "img_size": 28, "init_values": 0.5},
    ),
    "packed SwiGLU": (
        "vit_giant_patch14_dinov2",
        {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 28},
    ),
    "attention pool": ("vit_base_patch16_siglip_224", {**SMALL, "num_classes": 3}),
    "attention pool over registers, tanh-gelu": (
        "vit_so150m_patch16_reg4_map_256",
        {**SMALL, "act_layer": "gelu_tanh", "qkv_bias": False},
    ),
    "distilled": ("deit_tiny_distilled_patch16_224", {**SMALL, "num_classes": 5}),
    "embedding norm, quick gelu, eps 1e-5": (
        "vit_base_patch32_clip_quickgelu_224",
        {**SMALL, "img_size": 64, "num_classes": 6},
    ),
    "mean pool with its own norm, grey": (
        "vit_base_patch16_reg4_gap_256",
        {**SMALL, "in_chans": 1, "num_classes": 4},
    ),
    "mean pool after the final norm, no qkv bias": ("vit_medium_patch16_gap_240", SMALL),
    "query and key norm, no biases": (
        "vit_base_patch16_224",
        {**SMALL, "qk_norm": True, "proj_bias": False, "qkv_bias": False, "num_classes": 3},
    ),
    "rms norm": ("test_vit4", {"num_classes": 5, "img_size": 32, "depth": 3}),
    "no positions, no final norm": (
        "vit_base_patch16_224",
        {**SMALL, "pos_embed": "none", "final_norm": False, "num_classes": 3},
    ),
    "class token without a position": ("deit3_small_patch16_224", {**SMALL, "num_classes": 3}),
    "pixels past the last patch": (
        "vit_so400m_patch14_siglip_384",
        {**SMALL, "img_size": 34},
    ),
}  # fmt: skip


def stored(folder, architecture, arguments):
    """A random model of timm, saved by timm as on its hub."""
    model = randomise(timm.create_model(architecture, **arguments))
    save_for_hf(model, folder, safe_serialization=True)
    return model


def reopened(folder):
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def outputs(model, pixels):
    with torch.no_grad():
        features = model.forward_features(pixels)
        return features, model.forward_head(features)


@pytest.mark.parametrize("name", MODELS)
def test_equal_and_back(name, tmp_path) -> None:
    theirs = stored(tmp_path / "timm", *MODELS[name])
    ours = zoo.load(f"dir:{tmp_path / 'timm'}")
    pixels = pictures(ours.config.tokenizer.channels, *ours.config.tokenizer.image)
    features, answer = outputs(theirs, pixels)
    with torch.no_grad():
        found = ours(pixels)
    assert deviation(found.hidden, features) <= EXACT
    assert deviation(found.pooled if found.logits is None else found.logits, answer) <= EXACT

    zoo.save(ours, tmp_path / "back", format="timm-vit")
    assert_same_files(tmp_path / "back", tensors(tmp_path / "timm"))
    first, again = (reopened(tmp_path / folder) for folder in ("timm", "back"))
    assert torch.equal(outputs(again, pixels)[1], answer)
    said = [json.dumps(timm.data.resolve_model_data_config(model)) for model in (first, again)]
    assert said[0] == said[1]


@pytest.mark.parametrize("name", ["packed SwiGLU", "attention pool", "distilled", "rms norm"])
def test_close_in_bfloat16(name, tmp_path) -> None:
    theirs = stored(tmp_path, *MODELS[name])
    ours = zoo.load(f"dir:{tmp_path}", dtype="bf16")
    assert next(ours.parameters()).dtype == torch.bfloat16
    pixels = pictures(ours.config.tokenizer.channels, *ours.config.tokenizer.image)
    with torch.no_grad():
        found = ours(pixels.bfloat16())
    assert relative_error(found.hidden, outputs(theirs, pixels)[0]) <= ROUGH


@pytest.mark.parametrize("name", ["registers, layer scale, no head", "attention pool", "distilled"])
@pytest.mark.parametrize("size", [(42, 56), (56, 14 * 2), (14, 14), (112, 112)])
def test_other_sizes_interpolate_positions_as_timm(name, size, tmp_path) -> None:
    architecture, arguments = MODELS[name]
    theirs = stored(tmp_path, architecture, {**arguments, "patch_size": 14, "img_size": 28})
    ours = zoo.load(f"dir:{tmp_path}")
    dynamic = timm.create_model(
        architecture, **{**arguments, "patch_size": 14, "img_size": 28}, dynamic_img_size=True
    ).eval()
    dynamic.load_state_dict(theirs.state_dict())
    pixels = pictures(3, *size)
    with torch.no_grad():
        assert deviation(ours(pixels).hidden, dynamic.forward_features(pixels)) <= EXACT


def test_preprocessing_is_the_files_own(tmp_path) -> None:
    from PIL import Image
    from timm.data import create_transform, resolve_model_data_config

    stored(tmp_path, "vit_tiny_patch16_224", SMALL)
    theirs, ours = reopened(tmp_path), zoo.load(f"dir:{tmp_path}")
    image = Image.radial_gradient("L").resize((61, 43)).convert("RGB")
    transform = create_transform(**resolve_model_data_config(theirs), is_training=False)
    assert torch.equal(ours.tokenizer.preprocess(image)[0], transform(image))


def test_the_table_says_what_timm_builds(monkeypatch) -> None:
    import functools

    from timm.models import deit, vision_transformer
    from timm.models._factory import model_entrypoint

    from zoo.weights.formats._timm_architectures import ARCHITECTURES, DEFAULTS

    seen = {}

    def record(cls, variant, pretrained, **arguments):
        seen[variant] = (cls.__name__, arguments)
        raise InterruptedError

    for module in (deit, vision_transformer):
        monkeypatch.setattr(module, "build_model_with_cfg", record)
    for name, ours in ARCHITECTURES.items():
        with pytest.raises(InterruptedError):
            model_entrypoint(name)()
        kind, arguments = seen[name]
        for key in ("pretrained_filter_fn", "pretrained_strict", "feature_cfg", "dynamic_img_size"):
            arguments.pop(key, None)
        norm, mlp = arguments.pop("norm_layer", None), arguments.pop("mlp_layer", None)
        if isinstance(norm, functools.partial):
            assert norm.func.__name__ == "LayerNorm"
            arguments["norm_eps"] = norm.keywords["eps"]
        elif norm is not None:
            arguments["norm_layer"] = norm
        if mlp is not None:
            assert (mlp.func.__name__, mlp.keywords["gate_last"]) == ("GluMlp", False)
            arguments["mlp_layer"] = "swiglu_packed"
        activation = arguments.pop("act_layer", None)
        if activation is not None:
            arguments["act_layer"] = getattr(activation, "__name__", activation).lower()
        arguments["distilled"] = kind == "VisionTransformerDistilled"
        assert {**DEFAULTS, **arguments} == {**DEFAULTS, **ours}, name


# -- configs ---------------------------------------------------------------------------------------


def changed(folder, **changes):
    """The folder with keys of its config.json replaced; a dotted name reaches below."""
    content = json.loads((folder / "config.json").read_text())
    for path, value in changes.items():
        *above, key = path.split("__")
        inner = content
        for part in above:
            inner = inner.setdefault(part, {})
        inner[key] = value
    (folder / "config.json").write_text(json.dumps(content))
    return f"dir:{folder}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_args__window_size": 7}, "window_size"),
        ({"pretrained_cfg__colour_space": "lab"}, "colour_space"),
        ({"extra": 1}, "'extra'"),
        ({"model_args__pool_include_prefix": True}, "pool_include_prefix"),
        ({"model_args__scale_attn_norm": True}, "scale_attn_norm"),
        ({"model_args__global_pool": "avgmax"}, "global_pool='avgmax'"),
        ({"model_args__norm_layer": "batchnorm"}, "norm_layer"),
        ({"model_args__norm_eps": 1e-3}, "norm_eps"),
        ({"model_args__act_layer": "mish"}, "mish"),
        ({"model_args__depth": "two"}, "'depth' must be int"),
        ({"model_args__qkv_bias": 1}, "'qkv_bias' must be bool"),
        ({"pretrained_cfg__crop_mode": "border"}, "border"),
        ({"pretrained_cfg__interpolation": "random"}, "random"),
        ({"model_args__patch_drop_rate": 0.5}, "patch_drop_rate"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(change, words, tmp_path) -> None:
    stored(tmp_path, "vit_tiny_patch16_224", SMALL)
    with pytest.raises(ConfigError, match=words) as error:
        zoo.load(changed(tmp_path, **change))
    assert "\n" not in str(error.value)


def test_architectures_outside_the_table_are_not_guessed() -> None:
    from zoo.weights.formats import format_for, formats

    # a plugin may read whatever timm has; what is spelt out here is read here
    assert format_for({"architecture": "vit_tiny_patch16_224"}).name == "timm-vit"
    content = {"architecture": "vit_base_patch16_xp_224", "pretrained_cfg": {}}
    with pytest.raises(ConfigError, match="vit_base_patch16_xp_224"):
        formats()["timm-vit"].read_config(content, ())


def test_older_layouts(tmp_path) -> None:
    from safetensors.torch import save_file

    theirs = stored(tmp_path, "vit_tiny_patch16_224", {"img_size": 32, "num_classes": 3})
    content = json.loads((tmp_path / "config.json").read_text())
    inner = content["pretrained_cfg"]
    flat = {
        "architecture": "vit_tiny_patch16_224",
        "num_features": 192,
        "labels": list("abc"),
        **inner,
    }
    (tmp_path / "config.json").write_text(json.dumps(flat))
    weights = tensors(tmp_path)
    extra = {"pre_logits.fc.weight": torch.zeros(4, 192), "pre_logits.fc.bias": torch.zeros(4)}
    save_file({**weights, **extra}, tmp_path / "model.safetensors")
    ours = zoo.load(f"dir:{tmp_path}")
    assert ours.config.labels == ["a", "b", "c"]
    pixels = pictures(3, 32, 32)
    with torch.no_grad():
        assert deviation(ours(pixels).logits, theirs(pixels)) <= EXACT


def test_files_that_do_not_fit_are_refused(tmp_path) -> None:
    from safetensors.torch import save_file

    stored(tmp_path, "vit_tiny_patch16_224", SMALL)
    weights = tensors(tmp_path)
    save_file({**weights, "blocks.0.attn.gate": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"blocks\.0\.attn\.gate"):
        zoo.load(f"dir:{tmp_path}")
    del weights["blocks.1.mlp.fc1.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"layers\.1\.feedforward\.up\.bias"):
        zoo.load(f"dir:{tmp_path}")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("backbone.position=rope", "backbone.position"),
        ("backbone.norm={name: layer, eps: 1e-3}", "norm.eps"),
        ("backbone.norm=scale", "backbone.norm"),
        ("backbone.placement=post", "placement"),
        ("backbone.attention.kv_heads=1", "kv_heads"),
        ("backbone.attention.window=3", "window"),
        ("pool=class-mean", "pool"),
        ("projection=5", "projection"),
        ("mask_token=true", "mask_token"),
        ("backbone.parallel=true", "parallel"),
    ],
)
def test_what_timm_has_no_word_for_is_not_dropped(override, words, tmp_path) -> None:
    model = zoo.create("vit-digits", "backbone.position=learned-grid", override, seed=0)
    with pytest.raises(ConfigError, match=words) as error:
        zoo.save(model, tmp_path, format="timm-vit")
    assert "timm-vit" in str(error.value)


def test_what_was_made_here_opens_there(tmp_path) -> None:
    ours = zoo.create(
        "vit-digits", "backbone.position=learned-grid", "backbone.layer_scale=0.1", seed=3
    ).eval()
    zoo.save(ours, tmp_path, format="timm-vit")
    theirs = reopened(tmp_path)
    pixels = pictures(1, 32, 32)
    with torch.no_grad():
        assert deviation(ours(pixels).logits, theirs(pixels)) <= EXACT
    assert zoo.load(f"dir:{tmp_path}").config.labels == ours.config.labels
