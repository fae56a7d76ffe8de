"""Coloured and moving digits: what is in them, that they are fixed, and who judges them."""

from __future__ import annotations

import hashlib
import itertools

import pytest
import torch

from zoo.data import judge
from zoo.data.colour_digits import COLOURS, UNSEEN, WORDS
from zoo.data.draw import seeds_of
from zoo.data.moving_digits import DIRECTIONS, clips
from zoo.errors import ConfigError, DataError
from zoo.registry import build, resolve


def data(name, **keys):
    return build(resolve("data", {"name": name, **keys}))


def digest(tensor):
    return hashlib.sha256((tensor * 255).round().byte().numpy().tobytes()).hexdigest()[:16]


def test_colours_and_captions():
    train, test = (data("colour-digits").split(name) for name in ("train", "test"))
    assert len(test) == 4 * 360 and len(train) < 4 * 1437
    batch = test.batch(range(8))
    assert batch["pixels"].shape == (8, 3, 32, 32)
    assert batch["pixels"].min() == 0 and batch["pixels"].max() == 1
    assert batch["captions"][0].startswith("a handwritten red ")
    for pixels, words, digit, colour in zip(
        batch["pixels"], batch["captions"], batch["digits"], batch["colours"], strict=True
    ):
        name = list(COLOURS)[colour]
        assert words == f"a handwritten {name} {WORDS[digit]}"
        assert torch.equal(pixels.amax((1, 2)) > 0, torch.tensor(COLOURS[name]) > 0)


def test_four_pairs_are_never_trained_on():
    pairs = [(colour, digit) for colour in COLOURS for digit in range(10)]
    assert len(pairs) == 40 and len(set(UNSEEN) & set(pairs)) == 4
    named = {f"a handwritten {colour} {WORDS[digit]}" for colour, digit in UNSEEN}
    train = data("colour-digits").split("train")
    assert len(set(train.captions)) == 36 and not named & set(train.captions)
    assert named <= set(data("colour-digits", unseen=True).split("train").captions)
    test = data("colour-digits").split("test")
    batch = test.batch(range(len(test)))
    assert len(set(batch["captions"])) == 40
    shown = [words in named for words in batch["captions"]]
    assert torch.equal(batch["unseen"], torch.tensor(shown)) and 0.05 < sum(shown) / 1440 < 0.15


@pytest.mark.parametrize(("frames", "step"), [(1, 4), (5, 4), (9, 2)])
def test_digits_move_as_they_say(frames, step):
    split = data("moving-digits", frames=[frames], step=step).split("test")
    assert len(split) == 4 * 360
    batch = split.batch(range(12))
    pixels = batch["pixels"]
    assert pixels.shape == (12, 3, frames, 32, 32)
    assert torch.equal(pixels[:, 0], pixels[:, 2])  # white
    total = pixels[:, 0].sum((-1, -2))
    assert torch.allclose(total, total[:, :1].expand_as(total))  # whole in every frame
    for clip, words, way in zip(
        pixels[:, 0], batch["captions"], batch["directions"].tolist(), strict=True
    ):
        name = list(DIRECTIONS)[way]
        assert words.endswith(f" moving {name}")
        shift = [step * part for part in DIRECTIONS[name]]
        for first, second in itertools.pairwise(clip):
            assert torch.equal(torch.roll(first, shift, (0, 1)), second)


@pytest.mark.parametrize(("grid", "starts"), [(8, {0, 8, 16}), (4, {0, 4, 8, 12, 16})])
def test_digits_start_on_a_grid(grid, starts):
    scans, ways = torch.ones(64, 16, 16), torch.arange(64) % 4
    places = torch.rand(64, 2, generator=torch.Generator().manual_seed(0))
    first = clips(scans, ways, places, 5, 4, grid)[:, 0, 0]
    rows, columns = first.amax(2).argmax(1), first.amax(1).argmax(1)
    across = torch.where(ways < 2, rows, columns)  # left and right, then up and down
    assert set(across.tolist()) == starts
    along = torch.where(ways < 2, columns, rows)
    assert torch.equal(along, torch.tensor([16, 0, 16, 0]).repeat(16))  # the whole way is ahead


def test_a_clip_turns_where_there_is_room():
    moving = data("moving-digits", grid=8)
    batch = moving.split("test").batch(range(80))
    told = moving.turn(batch["pixels"], batch)
    assert torch.equal(told["digits"], batch["digits"])
    names = list(DIRECTIONS)
    last = batch["pixels"][:, 0, -1]
    found = set()
    for picture, old, new, words in zip(
        last, batch["directions"].tolist(), told["directions"].tolist(), told["captions"]
    ):
        assert words.endswith(f" moving {names[new]}") and new != old
        shift = [16 * part for part in DIRECTIONS[names[new]]]
        moved = torch.zeros(64, 64)  # with a border, where nothing may come to stand
        moved[16:48, 16:48] = picture
        moved = torch.roll(moved, shift, (0, 1))
        assert moved[16:48, 16:48].sum() >= 0.99 * picture.sum()
        found.add((old, new))
    assert len(found) > 8  # back and across, both ways


def test_lengths_mix_in_training_and_keep_digits_inside():
    split = data("moving-digits", frames=[5, 9, 2], step=4).split("train")
    shapes = set()
    for step in range(12):
        batch = split.batch(range(4), seeds_of(step, torch.arange(4)))
        shapes.add(batch["pixels"].shape[2])
    assert shapes == {5, 9, 2}
    assert split.batch([0, 1])["pixels"].shape[2] == 5  # held-out clips have the first
    with pytest.raises(ConfigError, match="at most 17 frames"):
        data("moving-digits", frames=[18])


def test_pixels_hang_on_the_seed_alone():
    split = data("moving-digits").split("train")
    seeds = seeds_of(7, torch.arange(6))
    whole = split.batch(range(6), seeds)["pixels"]
    part = split.batch(range(3, 6), seeds[3:])["pixels"]
    assert torch.equal(whole[3:], part)
    assert not torch.equal(whole, split.batch(range(6), seeds_of(8, torch.arange(6)))["pixels"])
    assert (
        digest(data("moving-digits").split("test").batch(range(40))["pixels"]) == "e60abdd340d31b3c"
    )
    assert (
        digest(data("colour-digits").split("test").batch(range(40))["pixels"]) == "27f035591b50c638"
    )


def test_the_judge_reads_real_digits():
    colours = data("colour-digits")
    split = colours.split("test")
    batch = split.batch(range(len(split)))
    found = colours.judge(batch["pixels"], batch)
    assert found["digit"].float().mean() > 0.985 and found["colour"].all()
    moving = data("moving-digits", frames=[5])
    batch = moving.split("test").batch(range(400))
    found = {
        name: float(right.float().mean())
        for name, right in moving.judge(batch["pixels"], batch).items()
    }
    assert found["digit"] > 0.97 and found["digit_last"] > 0.97 and found["direction"] == 1


def test_the_judge_is_not_fooled():
    colours = data("colour-digits")
    batch = colours.split("test").batch(range(200))
    noise = torch.rand(200, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert colours.judge(noise, batch)["digit"].float().mean() < 0.3
    swapped = batch["pixels"][:, [1, 2, 0]]
    assert colours.judge(swapped, batch)["colour"].float().mean() == 0.25  # white stays white
    moving = data("moving-digits")
    clip = moving.split("test").batch(range(100))
    backwards = moving.judge(clip["pixels"].flip(2), clip)
    assert not backwards["direction"].any()


def test_frechet_distances_tell_drawn_from_real():
    split = data("colour-digits").split("test")
    pixels = split.batch(range(1440))["pixels"]
    assert 0 < judge.frechet(pixels) < 0.05
    assert judge.frechet((pixels + 0.2).clamp(0, 1)) > 1
    assert judge.frechet(pixels[split.digits == 3]) > 0.5  # all of one kind is not the real thing
    with pytest.raises(DataError, match="multiple of 8"):
        judge.frechet(torch.zeros(2, 3, 30, 30))
