"""Visual tokenizers through the body of tests that every model passes, and their own interface."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zoo
from tests.models.case import ModelCase
from zoo.errors import ConfigError, DataError


class TestPictures(ModelCase):
    node = "fsq-digits"
    rough = 0.5  # near a border between two codes rounding decides

    def inputs(self, model, batch):
        return (torch.rand(batch, 3, 32, 32),), {}

    def answer(self, output):
        return output.pixels

    def every_output(self, output):
        return output.reconstruction + sum(output.codes.losses.values())


class TestClips(TestPictures):
    node = "cvivit-digits"

    def inputs(self, model, batch):
        return (torch.rand(batch, 3, 5, 32, 32),), {}


class TestResidual(TestPictures):
    overrides = (
        "quantizer=residual",
        "quantizer.steps=2",
        "quantizer.quantizer={name: fsq, levels: [8, 8]}",
        "reconstruction=logit-laplace",
        "span=[0.1, 0.9]",
    )
    test_a_step_goes_downhill = None  # a straight-through gradient is not quite the loss's own


@pytest.fixture(scope="module")
def pictures():
    return zoo.create("fsq-digits", seed=0).eval()


@pytest.fixture(scope="module")
def clips():
    return zoo.create("cvivit-digits", seed=0).eval()


@torch.no_grad()
def test_the_interface(pictures):
    codes = pictures.encode(torch.rand(3, 3, 32, 32))
    assert codes.ids.shape == (3, 8, 8) == (3, *pictures.grid((32, 32)))
    assert codes.ids.max() < pictures.codebook_size == pictures.config.codebook_size == 128
    pixels = pictures.decode(codes.ids)
    assert pixels.shape == (3, 3, 32, 32) == (3, 3, *pictures.shape((8, 8)))
    assert pixels.min() >= 0 and pixels.max() <= 1
    assert torch.equal(pictures.decode(codes.ids.flatten(1), grid=(8, 8)), pixels)
    arrays = pictures.pictures(pixels)
    assert arrays.shape == (3, 32, 32, 3) and arrays.dtype == np.uint8
    again = pictures.preprocess(list(arrays))
    assert (again - pixels).abs().max() <= 0.5 / 255 + 1e-6
    assert not pictures.video


@torch.no_grad()
def test_other_sizes_have_other_grids(pictures):
    codes = pictures.encode(torch.rand(1, 3, 24, 40))
    assert codes.ids.shape == (1, 6, 10) == (1, *pictures.grid((24, 40)))
    assert pictures.decode(codes.ids).shape == (1, 3, 24, 40)


@torch.no_grad()
def test_time_is_exactly_causal(clips):
    """Whatever happens later changes nothing at all of what stands before."""
    pixels = torch.rand(2, 3, 9, 32, 32)
    whole = clips.encode(pixels)
    answer = clips.decode(whole.ids)
    for time in range(1, 5):
        changed = pixels.clone()
        changed[:, :, 2 * time - 1 :] = torch.rand(2, 3, 10 - 2 * time, 32, 32)
        other = clips.encode(changed)
        assert (whole.vectors - other.vectors)[:, :time].abs().max() == 0.0
        assert (whole.vectors - other.vectors)[:, time].abs().max() > 0
        ids = whole.ids.clone()
        ids[:, time:] = (ids[:, time:] + 1) % 128
        assert (clips.decode(ids) - answer)[:, :, : 2 * time - 1].abs().max() == 0.0
        assert (clips.decode(ids) - answer)[:, :, 2 * time - 1 :].abs().max() > 0


@torch.no_grad()
def test_clips_of_any_length_and_pictures(clips):
    pixels = torch.rand(2, 3, 9, 32, 32)
    whole = clips.encode(pixels).ids
    for frames in (1, 3, 5, 9):
        ids = clips.encode(pixels[:, :, :frames]).ids
        assert ids.shape == (2, *clips.grid((frames, 32, 32)))
        assert torch.equal(ids, whole[:, : ids.shape[1]])
        answer = clips.decode(ids)
        assert answer.shape == (2, 3, *clips.shape(clips.grid((frames, 32, 32))))
        assert answer.shape[2] == frames
    assert torch.equal(clips.encode(pixels[:, :, 0]).ids, whole[:, :1])  # a picture is one frame
    assert clips.pictures(clips.decode(whole)).shape == (2, 9, 32, 32, 3)
    assert clips.video


def test_what_does_not_fit_is_refused(pictures, clips):
    with pytest.raises(DataError, match="height of 30 pixels is no multiple of 4"):
        pictures.encode(torch.rand(1, 3, 30, 32))
    with pytest.raises(DataError, match=r"\(batch, channels, height, width\) with 3 channels"):
        pictures.encode(torch.rand(1, 1, 32, 32))
    with pytest.raises(DataError, match="takes pictures"):
        pictures.grid((5, 32, 32))
    with pytest.raises(DataError, match="1 frame, and then 2 for each further time"):
        clips.encode(torch.rand(1, 3, 4, 32, 32))
    with pytest.raises(DataError, match="give grid= for flat ones"):
        pictures.decode(torch.zeros(2, 64, dtype=torch.int64))
    with pytest.raises(DataError, match="codes 0 to 127, and 128 is none"):
        pictures.decode(torch.full((1, 8, 8), 128))


def test_parts_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigError, match="decoder: its factor"):
        zoo.config("fsq-digits", "decoder.patch=[8, 8]")
    with pytest.raises(ConfigError, match="decoder: its video"):
        zoo.config("fsq-digits", "decoder=cvivit")
    with pytest.raises(ConfigError, match="span: a logit-laplace"):
        zoo.config("fsq-digits", "reconstruction=logit-laplace")
    with pytest.raises(ConfigError, match="causal: must be true"):
        zoo.config("cvivit-digits", "encoder.temporal.causal=false")
    with pytest.raises(ConfigError, match="both stacks share"):
        zoo.config("cvivit-digits", "encoder.temporal.width=32")


@torch.no_grad()
def test_without_a_decoder_it_only_encodes():
    model = zoo.create("fsq-digits", "decoder=null", seed=0).eval()
    codes = model.encode(torch.rand(1, 3, 32, 32))
    with pytest.raises(ConfigError, match="an encoder alone"):
        model.decode(codes.ids)


@pytest.mark.parametrize("quantizer", ["vq", "vq-l2", "vq-ema", "gumbel", "lfq", "residual"])
def test_every_quantizer_swaps_in_and_overfits_one_batch(quantizer):
    """Ten pictures by heart: what cannot even do this has no gradient where it needs one."""
    torch.manual_seed(0)
    size = {"lfq": ["bits=6"], "residual": ["steps=2", "quantizer.size=64"]}
    keys = size.get(quantizer, ["size=64"]) + ["kl=0"] * (quantizer == "gumbel")
    extra = [f"quantizer.{key}" for key in keys]
    small = [f"{half}.backbone.{key}" for half in ("encoder", "decoder")
             for key in ("depth=1", "width=32", "position=none")]  # fmt: skip
    model = zoo.create("fsq-digits", f"quantizer={quantizer}", *extra, *small, seed=0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    pixels = torch.rand(4, 3, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    first = None
    for step in range(80):
        model.anneal(step / 80)
        output = model(pixels)
        loss = output.reconstruction + sum(output.codes.losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = first or float(output.reconstruction.detach())
    model.eval()
    with torch.no_grad():
        answer = model.decode(model.encode(pixels).ids)
    assert (answer - pixels).square().mean() * 4 < first / 4
