"""Clips are judged in their first scene and in the one that goes on from it."""

import pytest
import torch

import zoo
from zoo.errors import ConfigError
from zoo.registry import build, resolve
from zoo.training.generation.drawings import Drawings


@pytest.fixture(scope="module")
def model():
    return zoo.create("phenaki-digits", seed=0).eval()


def test_a_second_scene_is_asked_for_and_judged(model, monkeypatch):
    data = build(resolve("data", {"name": "moving-digits", "grid": 8}))
    batch = {**data.split("test").batch(range(12)), "valid": torch.ones(12, dtype=torch.bool)}
    drawings = Drawings(data, 6)
    list(drawings.watching([batch]))
    whole = data.split("test").batch(range(6))

    def ideal(prompts, before=None, **options):  # goes on as it is told
        assert len(prompts) == 6 and torch.equal(before, whole["pixels"])
        told = data.turn(before, whole)
        assert prompts == told["captions"]
        vectors = ((0, -4), (0, 4), (-4, 0), (4, 0))
        frames = []
        for clip, way in zip(before, told["directions"].tolist(), strict=True):
            steps = [[n * part for part in vectors[way]] for n in range(1, 5)]
            frames.append(torch.stack([torch.roll(clip[:, -1], s, (1, 2)) for s in steps], dim=1))
        return torch.stack(frames)

    monkeypatch.setattr(model, "scenes", ideal)
    path = "zoo.training.generation.drawings.draw_pixels"
    monkeypatch.setattr(path, lambda *given, **options: whole["pixels"])
    found = {name: float(s / count) for name, (s, count) in drawings.judged(model, 2).items()}
    assert found["direction"] == found["second_direction"] == 1
    assert found["digit"] == found["second_digit_last"] == 1


def test_scenes_go_on_from_what_was_there(model):
    before = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    prompts = ["a three moving left", "a four moving up"]
    seen = []
    new = model.scenes(prompts, before, seed=0, steps=2, watch=seen.append)
    assert new.shape == (2, 3, 4, 32, 32)  # five frames, of which one was there
    kept = model.visual.encode(before[:, :, -1:]).ids.flatten(1)
    assert all(torch.equal(codes[:, :64], kept) for codes in seen)
    with pytest.raises(ConfigError, match="a scene of 3 frames has no room for 3"):
        model.scenes(prompts, before, 3, 3)
