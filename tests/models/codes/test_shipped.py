"""The codes of digits that ship do what is written beside them."""

from __future__ import annotations

import json

import pytest
import torch

import zoo
from zoo.models.shipped import ASSETS
from zoo.registry import build, resolve
from zoo.tokenizers.visual.quantizers.base import use_of
from zoo.training.codes.reconstruction import psnr


def measured(name):
    return json.loads((ASSETS / name / "measured.json").read_text())["psnr"]["value"]


@torch.no_grad()
def reconstructed(name, data, count, **keys):
    """Returns (PSNR, what the judge says, share of the codes in use) over some held-out samples."""
    model, source = zoo.load(name), build(resolve("data", {"name": data, **keys}))
    split = source.split("test")
    # an odd step, so that every colour and direction is met
    batch = split.batch(range(0, len(split), len(split) // count | 1))
    codes = model.encode(batch["pixels"])
    answer = model.decode(codes.ids)
    counts = torch.bincount(codes.ids.flatten(), minlength=model.codebook_size)
    said = {key: float(right.float().mean()) for key, right in source.judge(answer, batch).items()}
    return float(psnr(answer, batch["pixels"]).mean()), said, use_of(counts)["codes_used"]


@pytest.mark.parametrize(
    ("name", "used"),
    [("fsq-digits", 0.5), ("vq-digits", 0.9), ("lfq-digits", 0.5), ("dvae-digits", 0.7)],
)
def test_pictures(name, used):
    decibel, said, share = reconstructed(name, "colour-digits", 240)
    assert abs(decibel - float(measured(name).split()[0])) < 0.8 and decibel > 25.8
    assert said["digit"] >= 0.97 and said["colour"] == 1
    assert share > used


@pytest.mark.parametrize("frames", [1, 3, 5, 9])
def test_clips(frames):
    decibel, said, _ = reconstructed("cvivit-digits", "moving-digits", 120, frames=[frames])
    assert decibel > 21
    assert said["digit"] > 0.88 and (frames == 1 or said["direction"] == 1)
