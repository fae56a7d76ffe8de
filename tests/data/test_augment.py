"""Random changes of pictures: nothing when off, what they say when on, sample by sample."""

import pytest
import torch

from zoo.data.augment import augment, boxes
from zoo.data.draw import seeds_of
from zoo.data.schema import Augment

SEEDS = seeds_of(0, torch.arange(64))


def blob(rows=slice(12, 20), columns=slice(12, 20), size=(32, 32)) -> torch.Tensor:
    pixels = torch.full((64, 1, *size), -1.0)
    pixels[:, :, rows, columns] = 1
    return pixels


def centre(pixels: torch.Tensor) -> torch.Tensor:  # b 1 h w -> b 2
    mass = (pixels + 1)[:, 0]
    rows = torch.arange(mass.shape[1]) + 0.5
    columns = torch.arange(mass.shape[2]) + 0.5
    total = mass.sum((1, 2))
    return torch.stack(
        [(mass.sum(2) * rows).sum(1) / total, (mass.sum(1) * columns).sum(1) / total], dim=1
    )


def test_off_changes_nothing():
    pixels = torch.randn(64, 3, 16, 24)
    assert augment(pixels, SEEDS, Augment()) is pixels


@pytest.mark.parametrize(
    "change",
    [
        {"shift": 0.1},
        {"rotate": 20.0},
        {"scale": 0.2},
        {"stretch": 0.2},
        {"shear": 15.0},
        {"elastic": 0.05},
        {"erase": 1.0},
        {"flip": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_change_is_a_function_of_its_sample(change):
    pixels = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = pixels.clone()
    config = Augment(**change)
    whole = augment(pixels, SEEDS, config)
    assert torch.equal(pixels, before) and whole.shape == pixels.shape
    changed = (whole != pixels).flatten(1).any(1)
    assert changed.float().mean() > (0.3 if "flip" in change else 0.9)
    part = augment(pixels[10:13], SEEDS[10:13], config)
    assert torch.allclose(part, whole[10:13], atol=1e-6)
    other = augment(pixels, seeds_of(1, torch.arange(64)), config)
    assert not torch.equal(other, whole)


def test_shifts_stay_in_their_range_and_go_all_ways():
    moved = centre(augment(blob(), SEEDS, Augment(shift=0.125))) - 16
    assert moved.abs().max() <= 4.01 and moved.abs().max() > 3
    assert (moved > 0).float().mean(0).min() > 0.3 and (moved < 0).float().mean(0).min() > 0.3


def test_a_turn_keeps_shape_and_size_on_a_wide_picture():
    bar = blob(slice(15, 17), slice(24, 40), size=(32, 64))
    turned = augment(bar, SEEDS, Augment(rotate=90.0))
    mass = (turned + 1).sum((1, 2, 3)) / 2
    assert (mass - 32).abs().max() < 3  # pixels of ink: 2 x 16 at any angle
    heights = ((turned[:, 0] > 0).any(2)).sum(1)
    assert heights.min() <= 4 and heights.max() >= 14


def test_scale_is_symmetric_in_logarithm():
    sizes = (augment(blob(), SEEDS, Augment(scale=0.5)) + 1).sum((1, 2, 3)) / 2 / 64
    factors = sizes.sqrt()
    assert 0.62 < factors.min() < 0.75 and 1.35 < factors.max() < 1.6


def test_flip_mirrors_half_of_them():
    pixels = torch.randn(64, 1, 8, 8)
    flipped = augment(pixels, SEEDS, Augment(flip=True))
    mirrored = torch.isclose(flipped, pixels.flip(3), atol=1e-5).flatten(1).all(1)
    kept = torch.isclose(flipped, pixels, atol=1e-5).flatten(1).all(1)
    assert (mirrored | kept).all() and 20 < mirrored.sum() < 44


def test_erasing_blanks_one_box_with_the_background():
    pixels = torch.ones(64, 1, 32, 32)
    pixels[:, :, 0, 0] = -1
    erased = augment(pixels, SEEDS, Augment(erase=0.5, erase_area=0.25))
    share = (erased == -1).float().mean((1, 2, 3))
    hit = share > 0.002
    assert 18 < hit.sum() < 46 and share.max() <= 0.26
    rows = (erased[hit][:, 0] == -1)[:, 1:, 1:]
    solid = rows.any(2).sum(1) * rows.any(1).sum(1)
    assert torch.equal(solid, rows.sum((1, 2)))  # a rectangle


def test_boxes_have_their_share_of_the_area():
    share = torch.tensor([0.25, 1.0, 0.0])
    mask = boxes(share, torch.full((3, 2), 0.5), 32, 64)
    assert mask.shape == (3, 1, 32, 64)
    assert mask.float().mean((1, 2, 3)).tolist() == [0.25, 1.0, 0.0]
