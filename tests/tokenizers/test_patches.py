"""Pictures to patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.errors import ConfigError, DataError
from zoo.registry import build, resolve


def tokenizer(width: int = 6, **keys):
    config = resolve("tokenizer", {"name": "patches", "image": [8, 12], "patch": [4, 3], **keys})
    module = build(config, width=width)
    module.reset_parameters()
    return module


@torch.no_grad()
def test_a_token_is_a_linear_map_of_its_patch() -> None:
    module = tokenizer()
    pixels = torch.randn(2, 3, 8, 12)
    tokens = module(pixels)
    assert module.grid == (2, 4) and tokens.shape == (2, 8, 6)
    for row in range(2):
        for column in range(4):
            patch = pixels[:, :, 4 * row : 4 * row + 4, 3 * column : 3 * column + 3]
            expected = patch.flatten(1) @ module.weight.flatten(1).T + module.bias
            torch.testing.assert_close(tokens[:, 4 * row + column], expected)


@torch.no_grad()
def test_other_sizes_give_other_grids() -> None:
    module = tokenizer()
    assert module.grid_for(16, 6) == (4, 2)
    assert module(torch.randn(1, 3, 16, 6)).shape == (1, 8, 6)
    assert module.preprocess(np.zeros((9, 9, 3), np.uint8), size=(16, 6)).shape == (1, 3, 16, 6)


@pytest.mark.parametrize("size", [(9, 12), (8, 13), (0, 12), (2, 3)])
def test_a_rest_is_refused(size) -> None:
    with pytest.raises(DataError, match="does not divide"):
        tokenizer().grid_for(*size)
    with pytest.raises(DataError, match="does not divide"):
        tokenizer().preprocess(np.zeros((9, 9, 3), np.uint8), size=size)


@torch.no_grad()
def test_a_rest_is_cut_where_the_config_says_so() -> None:
    module = tokenizer(cut=True, image=[10, 14])
    assert module.grid == (2, 4)
    pixels = torch.randn(1, 3, 10, 14)
    assert torch.equal(module(pixels), module(pixels[:, :, :8, :12]))
    with pytest.raises(DataError, match="does not divide"):
        module.grid_for(3, 12)


def test_size_is_what_pictures_are_brought_to() -> None:
    module = tokenizer(size=[16, 9])
    assert module.grid == (2, 4)
    assert module.preprocess(Image.new("RGB", (30, 30))).shape == (1, 3, 16, 9)
    assert module.preprocess(Image.new("RGB", (30, 30)), size=(8, 3)).shape == (1, 3, 8, 3)


def test_pictures_and_lists() -> None:
    module = tokenizer()
    picture = np.zeros((9, 9, 3), np.uint8)
    assert module.preprocess(picture).shape == (1, 3, 8, 12)
    assert module.preprocess([picture, Image.new("L", (5, 50))]).shape == (2, 3, 8, 12)
    assert module.preprocess(np.zeros((4, 9, 9, 3), np.uint8)).shape == (4, 3, 8, 12)


def test_grey_pictures() -> None:
    module = tokenizer(channels=1, mean=[0.0], std=[1.0], resize="squash")
    pixels = module.preprocess(Image.new("RGB", (5, 5), (255, 0, 0)))
    assert pixels.shape == (1, 1, 8, 12)
    assert pixels.unique().tolist() == pytest.approx([76 / 255])  # of red, by ITU-R 601
    with pytest.raises(DataError, match="takes 4 channels"):
        tokenizer(channels=4, mean=[0.5], std=[0.5]).preprocess(Image.new("RGB", (5, 5)))


def test_no_bias() -> None:
    module = tokenizer(bias=False)
    assert module.bias is None and not module(torch.zeros(1, 3, 8, 12)).any()


def test_wrong_pixels_are_named() -> None:
    for shape in ((3, 8, 12), (1, 1, 8, 12), (1, 3, 8, 12, 1)):
        with pytest.raises(DataError, match=r"Expected pixels \(batch, 3, height, width\)"):
            tokenizer()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"image": [9, 12]}, "height 9 is no multiple of the patch's 4"),
        ({"image": [2, 12], "cut": True}, "height 2"),
        ({"size": [8, 13]}, "size: width 13"),
        ({"mean": [0.5, 0.5]}, "mean: needs 1 or 3 numbers"),
        ({"std": [0.5, 0.0, 0.5]}, "std: must be more than 0"),
        ({"crop": 0.0}, "crop: must be more than 0"),
        ({"crop": 1.1}, "crop: must be at most 1"),
        ({"resize": "stretch"}, "resize: must be one of"),
        ({"interpolation": "cubic"}, "Did you mean 'bicubic'"),
        ({"patch": 16}, "expected a list"),
    ],
)
def test_configs_that_make_no_sense(keys, words) -> None:
    with pytest.raises(ConfigError, match=words):
        tokenizer(**keys)
