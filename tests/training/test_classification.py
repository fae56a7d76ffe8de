"""The classification objective: torch's losses, mixing by sample, metrics by counting."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.data.draw import seeds_of, uniform
from zoo.errors import ConfigError
from zoo.registry import build, resolve
from zoo.training.classification import beta_quantile
from zoo.training.distributed import World


def objective(**keys):
    return build(resolve("objective", {"kind": "classification", **keys}))


class Flat(nn.Module):
    """A linear classifier of 8 x 8 pixels; remembers what it was shown."""

    def __init__(self, classes=7):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, classes)

    def forward(self, pixels):
        self.shown = pixels
        return self.layer(pixels.flatten(1))


def batch_of(size, first=0):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(64, 1, 8, 8, generator=generator)
    labels = torch.randint(7, (64,), generator=generator)
    rows = slice(first, first + size)
    seeds = seeds_of(3, torch.arange(64))
    return {"pixels": pixels[rows], "labels": labels[rows], "seeds": seeds[rows]}


def test_the_loss_is_torchs_smoothed_cross_entropy():
    model, batch = Flat(), batch_of(16)
    loss = objective(smoothing=0.2)(model, batch)
    logits = model(batch["pixels"])
    assert torch.equal(loss.value, F.cross_entropy(logits, batch["labels"], label_smoothing=0.2))
    assert float(loss.scalars["accuracy"]) == (logits.argmax(1) == batch["labels"]).float().mean()


@pytest.mark.parametrize("keys", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixing_does_not_depend_on_how_a_step_is_divided(keys):
    model, mixes = Flat(), objective(**keys)
    whole = mixes(model, batch_of(16)).value
    shown = model.shown
    parts = []
    for first in (0, 4, 8, 12):
        parts.append(mixes(model, batch_of(4, first)).value)
        assert torch.equal(model.shown, shown[first : first + 4])
    assert (sum(parts) / 4).item() == pytest.approx(whole.item(), abs=1e-6)


@pytest.mark.parametrize("keys", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_targets_are_shared_as_the_pixels_are(keys):
    """A picture that is all i for label i: the mean of the mixed pixels tells the shares."""
    mixes = objective(**keys)
    pixels = torch.arange(64.0).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    mixed, partners, share = mixes.mix(pixels, seeds_of(0, torch.arange(64)))
    own = torch.arange(64)
    assert torch.equal(partners, own ^ 1) and torch.equal(partners[partners], own)
    expected = share * own + (1 - share) * partners
    assert torch.allclose(mixed.mean((1, 2, 3)), expected, atol=1e-5)
    assert share.min() >= 0 and share.max() <= 1 and share.std() > 0.1


def test_a_last_odd_sample_stays_alone():
    mixes = objective(mixup=1.0)
    batch = batch_of(5)
    mixed, partners, share = mixes.mix(batch["pixels"], batch["seeds"])
    assert partners[4] == 4 and share[4] == 1 and torch.equal(mixed[4], batch["pixels"][4])


def test_the_share_of_pairs_that_is_mixed():
    seeds = seeds_of(0, torch.arange(2000))
    _, _, share = objective(mixup=1.0, mix_chance=0.25).mix(torch.zeros(2000, 1, 2, 2), seeds)
    assert 0.21 < (share < 1).float().mean() < 0.29


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 4.0])
def test_beta_numbers_have_the_betas_moments(alpha):
    numbers = beta_quantile(uniform(torch.arange(40_000), 1)[:, 0], alpha)
    assert float(numbers.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(numbers.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
    fourth = torch.distributions.Beta(alpha, alpha).sample((200_000,)).sub(0.5).pow(4).mean()
    assert float((numbers - 0.5).pow(4).mean()) == pytest.approx(float(fourth), rel=0.05)


def test_the_arcsine_law_exactly():
    u = torch.linspace(0.001, 0.999, 99)
    assert torch.allclose(beta_quantile(u, 0.5), torch.sin(math.pi * u / 2) ** 2, atol=1e-4)


def test_metrics_count_valid_samples_only():
    model, batch = Flat(), batch_of(16)
    batch["valid"] = torch.arange(16) < 10
    logits = model(batch["pixels"][:10])
    labels = batch["labels"][:10]
    found = objective(top=[3, 7, 9]).evaluate(model, [batch], World())
    assert set(found) == {"loss", "accuracy", "top3"}  # 7 of 7 classes say nothing
    assert found["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-6)
    assert found["accuracy"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    top = (logits.topk(3).indices == labels[:, None]).any(1)
    assert found["top3"] == pytest.approx(float(top.float().mean()))


def test_direction_of_the_metrics():
    assert objective().metric == "accuracy"
    assert objective().higher_is_better("top5") and not objective().higher_is_better("loss")


def test_classes_must_be_as_many_as_labels():
    import zoo

    model = zoo.create("vit-digits", "backbone.depth=0", classes=9, labels=[], seed=0)
    with pytest.raises(ConfigError, match=r"has 9 classes and the data 10; add model\.classes=10"):
        objective().check(model, build(resolve("data", "digits")))
