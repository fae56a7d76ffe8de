"""VQ-GAN's other losses: the adversary, how much it counts, what learns from what; features."""

import shutil

import pytest
import torch
from torch.nn import functional as F

import zoo
from zoo.errors import ConfigError
from zoo.models.base import initialise
from zoo.nn.attention import Record
from zoo.registry import build, resolve
from zoo.training.codes.adversary import adaptive_weight, deceived, told_apart
from zoo.training.run import train
from zoo.weights.files import open_weights

CODEC = {
    "name": "vqgan",
    "channels": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "latent": 8,
    "norm_groups": 4,
    "middle_attention": False,
}
MODEL = {
    "kind": "visual-codes",
    "image": [16, 16],
    "encoder": CODEC,
    "quantizer": {"name": "vq", "size": 16, "width": 4},
    "decoder": CODEC,
    "reconstruction": "l1",
}
PATCH = {"name": "patch", "channels": 4, "layers": 2}


def tokenizer(seed=0):
    return initialise(build(resolve("model", MODEL)), seed).train()


def pixels(seed=0):
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def objective(model, step=0, **keys):
    made = build(resolve("objective", {"name": "reconstruction", "adversary": PATCH, **keys}))
    made.check(model, object())
    initialise(made.opponent, 1)
    made.opponent.train()
    made.begin(model, step, 10)
    return made


def batch():
    return {"pixels": pixels(), "seeds": torch.arange(4)}


# -- what counts how much --------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.8, 2.0])
def test_the_adaptive_weight_is_the_ratio_of_two_gradients(weight):
    model = tokenizer()
    ours = objective(model, adversary={**PATCH, "weight": weight})
    loss = ours(model, batch())
    # Equation 7 again, each gradient by a backward pass of its own.
    last, norms = model.decoder.output.weight, []
    for which in ("plain", "deceit"):
        output = model(pixels())
        value = output.reconstruction
        if which == "deceit":
            value = -ours.opponent(2 * output.pixels - 1).mean()
        model.zero_grad()
        value.backward()
        norms.append(last.grad.norm())
    expected = weight * norms[0] / (norms[1] + 1e-4)
    torch.testing.assert_close(loss.scalars["adversary_weight"], expected, rtol=1e-4, atol=0)
    assert 0 < float(expected) < 1e4
    parts = ("reconstruction", "commitment", "codebook")
    total = sum(loss.scalars[name] for name in parts) + expected * loss.scalars["deceit"]
    torch.testing.assert_close(loss.value, total, rtol=1e-4, atol=0)


def test_the_adaptive_weight_has_a_limit_and_no_gradient():
    config = resolve("adversary", {**PATCH, "limit": 5.0, "weight": 2.0})
    last = torch.ones(3, requires_grad=True)
    found = adaptive_weight(config, (last * 100).sum(), (last * 1e-9).sum(), last)
    assert float(found) == 10.0 and not found.requires_grad


def test_loss_weight_and_network_are_taming_s(monkeypatch):
    vqperceptual = pytest.importorskip("taming.modules.losses.vqperceptual")
    monkeypatch.setattr(vqperceptual, "LPIPS", torch.nn.Identity)  # which wants to download
    theirs = vqperceptual.VQLPIPSWithDiscriminator(
        disc_start=0, disc_num_layers=2, disc_ndf=4, disc_weight=0.8, perceptual_weight=0.0
    )
    model = tokenizer()
    ours = objective(model)
    network, published = ours.opponent, theirs.discriminator.state_dict()
    assert len(network.state_dict()) == len(published)
    network.load_state_dict(dict(zip(network.state_dict(), published.values(), strict=True)))
    loss = ours(model, batch())
    output = model(pixels())
    made, real = 2 * output.pixels - 1, 2 * pixels() - 1
    codes = loss.scalars["commitment"] + loss.scalars["codebook"]
    last = model.decoder.last
    total, log = theirs(codes, real, made, 0, 0, last_layer=last, split="t")
    torch.testing.assert_close(loss.value, total, rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.scalars["adversary_weight"], log["t/d_weight"])
    own, _ = theirs(codes, real, made, 1, 0, last_layer=last, split="t")
    torch.testing.assert_close(loss.opponent, own)


@pytest.mark.parametrize("loss", ["hinge", "vanilla"])
def test_the_network_learns_to_tell_apart(loss):
    config = resolve("adversary", {**PATCH, "loss": loss, "norm": "none"})
    network = initialise(build(config, channels=3), 0)
    real, made = pixels(1), 0.3 * pixels(2)
    optimizer, values = torch.optim.Adam(network.parameters(), 1e-2), []
    for _ in range(30):
        value = told_apart(network, config, real, made)
        optimizer.zero_grad(), value.backward(), optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < values[0] / 2
    assert deceived(network, made) > deceived(network, real)


# -- what learns from what -------------------------------------------------------------------------


def test_neither_learns_from_the_other_s_loss():
    model = tokenizer()
    ours = objective(model)
    loss = ours(model, batch())
    loss.value.backward()
    assert all(p.grad is None for p in ours.opponent.parameters())
    assert all(p.grad is not None for p in model.decoder.parameters())
    model.zero_grad(set_to_none=True)
    ours(model, batch()).opponent.backward()
    assert all(p.grad is not None for p in ours.opponent.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_it_is_off_before_its_step():
    model = tokenizer()
    early = objective(model, 6, adversary={**PATCH, "start": 7})(model, batch())
    plain = build(resolve("objective", "reconstruction"))(model, batch())
    assert early.opponent is None and torch.equal(early.value, plain.value)
    assert "deceit" not in early.scalars
    late = objective(model, 7, adversary={**PATCH, "start": 7})(model, batch())
    assert late.opponent is not None and not torch.equal(late.value, plain.value)


# -- features --------------------------------------------------------------------------------------


def test_features_of_a_shipped_model_are_compared():
    model = tokenizer()
    features = {"name": "features", "weight": 0.5}
    ours = build(resolve("objective", {"name": "reconstruction", "perceptual": features}))
    loss = ours(model, batch())
    seen, judge = ours.perceptual, zoo.load("vit-digits")
    grey = (pixels() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    large = F.interpolate(grey, (32, 32), mode="bilinear", antialias=True)
    record = Record(layers=frozenset(range(4)))
    judge((large - 0.5) / 0.5, record=record)
    for layer, found in enumerate(seen.features(pixels())):
        torch.testing.assert_close(found, F.normalize(record.hidden[layer], dim=-1))
    assert float(seen(pixels(), pixels())) < 1e-10  # one is seen with gradients, by other kernels
    near, far = (pixels() + by * pixels(9) for by in (0.05, 0.5))
    assert seen(near, pixels()) < seen(far, pixels())
    expected = loss.scalars["reconstruction"] + 0.5 * loss.scalars["perceptual"]
    codes = loss.scalars["commitment"] + loss.scalars["codebook"]
    torch.testing.assert_close(loss.value, expected + codes)
    loss.value.backward()
    assert all(p.grad is None for p in seen.model.parameters())


def test_what_sees_no_pictures_is_refused():
    with pytest.raises(ConfigError, match="'gpt-stdlib' is no vision model"):
        build(resolve("perceptual", {"name": "features", "model": "gpt-stdlib"}))
    with pytest.raises(ConfigError, match="has blocks 0 to 3, not 4"):
        build(resolve("perceptual", {"name": "features", "layers": [0, 4]}))


# -- a run -----------------------------------------------------------------------------------------


def experiment(folder):
    return resolve(
        "experiment",
        {
            "kind": "train",
            "model": {**MODEL, "image": [32, 32]},
            "data": "colour-digits",
            "objective": {
                "name": "reconstruction",
                "adversary": {**PATCH, "start": 1},
                "perceptual": "features",
            },
            "optim": {"name": "adamw", "lr": 1e-3, "betas": [0.5, 0.9]},
            "trainer": {
                "steps": 4,
                "batch": 8,
                "save_every": 2,
                "log_every": 1,
                "eval_every": None,
                "eval_batch": 720,
                "ema": 0.9,
                "best": "last",
            },
            "run": {"dir": str(folder)},
        },
    )


def test_a_run_goes_on_bit_for_bit_with_both_optimisers(tmp_path):
    train(experiment(tmp_path / "whole"), quiet=True)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again/checkpoints/step_00000004")
    (tmp_path / "again/result.json").unlink()
    (tmp_path / "again/checkpoints/last").write_text("step_00000002")
    train(experiment(tmp_path / "again"), quiet=True)
    whole, again = (open_weights(tmp_path / name / "model") for name in ("whole", "again"))
    assert whole.keys() == again.keys() and "opponent" not in " ".join(whole)
    assert all(torch.equal(whole[name].read(), again[name].read()) for name in whole)
    logs = [(tmp_path / name / "metrics.csv").read_text() for name in ("whole", "again")]
    assert "adversary_weight" in logs[0]
