"""The objective of visual tokenizers: what it measures, refuses and warns of."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.errors import ConfigError
from zoo.registry import build, resolve
from zoo.training.codes.reconstruction import psnr
from zoo.training.distributed import World


@pytest.fixture
def objective():
    return build(resolve("objective", "reconstruction"))


def batch():
    pixels = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return {"pixels": pixels, "valid": torch.tensor([True] * 5 + [False]), "seeds": torch.arange(6)}


def test_the_loss_is_the_sum_of_its_parts(objective):
    model = zoo.create("fsq-digits", "quantizer=vq", "quantizer.size=16", seed=0).train()
    loss = objective(model, batch())
    parts = [loss.scalars[name] for name in ("reconstruction", "commitment", "codebook")]
    assert torch.allclose(loss.value, sum(parts))
    loss.value.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_collapsed_codebook_is_told_with_its_remedies(objective):
    model = zoo.create("fsq-digits", "quantizer=vq", "quantizer.size=64", seed=0).eval()
    with torch.no_grad():
        model.quantizer.table[1:] += 100  # nothing is near these
    with pytest.warns(UserWarning, match=r"collapsed: 2% .* quantizer=fsq .* quantizer.revive"):
        numbers = objective.evaluate(model, [batch()], World())
    assert numbers["codes_used"] == 1 / 64 and numbers["perplexity"] == pytest.approx(1)


def test_padding_is_not_measured(objective):
    model, data = zoo.create("fsq-digits", seed=0).eval(), batch()
    with torch.no_grad():
        total, count = objective_measure(objective, model, data)["psnr"]
        answer = model.decode(model.encode(data["pixels"]).ids)
    assert count == 5
    assert torch.allclose(total, psnr(answer, data["pixels"])[:5].sum())


def test_the_frechet_distance_is_of_all_reconstructions(objective):
    """In batches of unlike sizes, padded, as of all at once."""
    model, data = zoo.load("vq-digits"), build(resolve("data", "colour-digits"))
    objective.check(model, data)
    split, batches = data.split("test"), []
    for rows in (range(60), range(60, 90)):
        batches.append(split.batch([*rows, 0]))  # the last one fills up
        batches[-1]["valid"] = torch.tensor([True] * len(rows) + [False])
    pixels = split.batch(range(90))["pixels"]
    with torch.no_grad():
        numbers = objective.evaluate(model, batches, World())
        answer = model.decode(model.encode(pixels).ids)
    assert numbers["frechet"] == pytest.approx(data.distance(answer), rel=1e-4)
    assert not objective.higher_is_better("frechet")


def objective_measure(objective, model, data):
    objective.counts = torch.zeros(model.codebook_size, dtype=torch.int64)
    return objective.measure(model, data)


def test_what_cannot_be_trained_is_refused(objective):
    data = build(resolve("data", "colour-digits"))
    with pytest.raises(ConfigError, match="trains visual tokenizers alone"):
        objective.check(zoo.create("vit-digits", device="meta"), data)
    with pytest.raises(ConfigError, match="nothing is reconstructed without one"):
        objective.check(zoo.create("fsq-digits", "decoder=null", device="meta"), data)


CODECS = {
    "vqgan": ["channels=8", "multipliers=[1, 2]", "blocks=1", "latent=16", "norm_groups=4"],
    "dvae": ["channels=16", "groups=2", "blocks=1"],
    "cvivit": ["patch=[2, 2]"]
    + [f"{s}.{k}" for s in ("spatial", "temporal") for k in ("depth=1", "width=32")],
}


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_overfits_one_batch(codec, objective):
    keys = [f"{half}.{key}" for half in ("encoder", "decoder") for key in CODECS[codec]]
    start = ["decoder.start=16"] * (codec == "dvae")
    halves = [f"encoder={codec}", f"decoder={codec}"]
    model = zoo.create(
        "fsq-digits", "image=[8, 8]", "quantizer.levels=[8, 8, 8]", *halves, *keys, *start, seed=0
    )
    shape = (4, 3, 3, 1, 1) if model.video else (4, 3, 1, 1)
    even = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    pixels = even.expand(*shape[:-2], 8, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = objective(model.train(), {"pixels": pixels, "seeds": torch.arange(4)}).value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 5
