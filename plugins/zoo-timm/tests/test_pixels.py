"""The pixels are those of timm's own evaluation transform."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

import zoo
from zoo.errors import DataError
from zoo.registry import build


def picture(width, height, mode="RGB"):
    noise = np.random.default_rng(width * height).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )
    smooth = (
        Image.fromarray(noise).resize((width // 7 + 1, height // 7 + 1)).resize((width, height))
    )
    return smooth.convert(mode)


# Of each way there is: centre, squash, border; bicubic, bilinear; not square; a crop beyond 1.
NAMES = [
    "resnet18.a1_in1k",
    "resnet18.tv_in1k",
    "resnet18.a3_in1k",
    "convnext_base.clip_laiona_augreg_ft_in1k_384",
    "mixer_b16_224.miil_in21k_ft_in1k",
    "efficientnet_b0.ra4_e3600_r224_in1k",
    "volo_d4_448.sail_in1k",
    "vit_base_patch16_siglip_224.webli",
    "inception_v3.tv_in1k",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(640, 480), (97, 301), (224, 224), (50, 33)])
def test_pixels_are_those_of_timm(name, size):
    cfg = timm.get_pretrained_cfg(name)
    transform = create_transform(**resolve_data_config(pretrained_cfg=cfg.to_dict()))
    tokenizer = build(zoo.config(f"timm/{name}").tokenizer)
    image = picture(*size)
    ours, theirs = tokenizer.preprocess(image), transform(image)[None]
    assert ours.shape == theirs.shape and ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("crop", [0.8, 1.0, 1.2])
@pytest.mark.parametrize("size", [(224, 224), (96, 160)])
@pytest.mark.parametrize(
    ("ours", "theirs"), [("shortest", "center"), ("squash", "squash"), ("border", "border")]
)
def test_every_way_and_shape(ours, theirs, size, crop):
    changes = {"resize": ours, "image": list(size), "crop": crop, "interpolation": "bilinear"}
    tokenizer = build(zoo.config("timm/pixels", changes, group="tokenizer"))
    transform = create_transform(
        (3, *size), crop_mode=theirs, crop_pct=crop, interpolation="bilinear"
    )
    for shape in ((301, 97), (200, 200), (60, 40)):
        image = picture(*shape)
        difference = (tokenizer.preprocess(image)[0] - transform(image)).abs().max()
        assert difference <= 1e-6, shape


def test_several_pictures_of_any_sort(tmp_path):
    tokenizer = build(zoo.config("timm/pixels", group="tokenizer"))
    picture(30, 20).save(tmp_path / "a.png")
    found = tokenizer.preprocess(
        [str(tmp_path / "a.png"), picture(30, 20), np.asarray(picture(30, 20))]
    )
    assert found.shape == (3, 3, 224, 224) and torch.equal(found[0], found[1])
    assert tokenizer.preprocess(picture(30, 20), size=(64, 32)).shape == (1, 3, 64, 32)


def test_grey_models_and_grey_pictures():
    grey = {"channels": 1, "mean": [0.5], "std": [0.5], "image": [32, 32]}
    for resize in ("shortest", "border"):
        tokenizer = build(zoo.config("timm/pixels", {**grey, "resize": resize}, group="tokenizer"))
        assert tokenizer.preprocess(picture(30, 20, "L")).shape == (1, 1, 32, 32)
    assert (
        build(zoo.config("timm/pixels", group="tokenizer")).preprocess(picture(9, 9, "L")).shape[1]
        == 3
    )


@pytest.mark.parametrize("resize", ["shortest", "border"])
def test_what_is_no_picture(resize, tmp_path):
    tokenizer = build(zoo.config("timm/pixels", f"resize={resize}", group="tokenizer"))
    with pytest.raises(DataError):
        tokenizer.preprocess(str(tmp_path / "none.png"))
    six = build(
        zoo.config(
            "timm/pixels",
            f"resize={resize}",
            "channels=6",
            "mean=[0]",
            "std=[1]",
            group="tokenizer",
        )
    )
    with pytest.raises(DataError):
        six.preprocess(picture(9, 9))
