"""Quantizers against vector-quantize-pytorch on equal weights, and what each must have."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from zoo.errors import ConfigError, DataError
from zoo.registry import build, resolve
from zoo.tokenizers.visual.quantizers.base import in_chunks, use_of

EVERY = {
    "vq": {"name": "vq", "size": 64},
    "vq-l2": {"name": "vq-l2", "size": 64, "width": 8},
    "vq-ema": {"name": "vq-ema", "size": 64},
    "gumbel": {"name": "gumbel", "size": 64},
    "gumbel-factorised": {"name": "gumbel", "size": 64, "width": 8, "bias": True},
    "gumbel-diverse": {"name": "gumbel", "size": 64, "scale": 5.0, "diversity": 3.0},
    "fsq": {"name": "fsq", "levels": [4, 4, 4]},
    "lfq": {"name": "lfq", "bits": 6},
    "residual": {"name": "residual", "steps": 3, "quantizer": {"name": "vq", "size": 64}},
    "residual-shared": {"name": "residual", "steps": 2, "shared": True, "quantizer": "vq-l2"},
}


def make(config, width=16, out=None, seed=0, **context):
    torch.manual_seed(seed)
    quantizer = build(resolve("quantizer", config), width=width, out=out or width, **context)
    with torch.no_grad():
        for module in quantizer.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return quantizer


@pytest.mark.parametrize("name", EVERY)
def test_codes_come_back(name):
    quantizer = make(EVERY[name], out=24).eval()
    x = torch.randn(2, 3, 5, 16)
    found = quantizer(x)
    depth = () if quantizer.config.depth == 1 else (quantizer.config.depth,)
    assert found.ids.shape == (2, 3, 5, *depth) and found.ids.dtype == torch.int64
    assert found.vectors.shape == (2, 3, 5, 24) and not found.losses
    assert found.ids.min() >= 0 and found.ids.max() < quantizer.size == quantizer.config.codes
    assert (quantizer.lookup(found.ids) - found.vectors).abs().max() < 1e-5
    assert len(found.ids.unique()) > 1


@pytest.mark.parametrize("name", EVERY)
def test_gradients_reach_the_encoder(name):
    quantizer = make(EVERY[name]).train()
    x = torch.randn(2, 9, 16, requires_grad=True)
    found = quantizer(x)
    found.vectors.square().mean().backward()
    assert x.grad.abs().sum() > 0 and torch.isfinite(x.grad).all()
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in found.losses.values())


@pytest.mark.parametrize("name", EVERY)
def test_losses_do_not_grow_with_the_batch(name):
    quantizer = make(EVERY[name], subpixels=48).train()
    x = torch.randn(1, 7, 16)
    # Running means and revival move the table, so each is asked afresh.
    one = quantizer(x).losses
    many = make(EVERY[name], subpixels=48).train()(x.repeat(4, 1, 1)).losses
    assert one.keys() == many.keys()
    for key, value in one.items():
        assert torch.allclose(value, many[key], rtol=1e-5, atol=1e-6), key


def test_numbers_that_are_no_codes_are_refused():
    quantizer = make(EVERY["fsq"])
    with pytest.raises(DataError, match="codes 0 to 63, and 64 is none"):
        quantizer.lookup(torch.tensor([[3, 64]]))
    with pytest.raises(DataError, match="codes 0 to 63, and -1 is none"):
        quantizer.lookup(torch.tensor([[-1, 2]]))
    with pytest.raises(DataError, match="whole numbers, not float32"):
        quantizer.lookup(torch.zeros(1, 2))
    with pytest.raises(ConfigError, match="two or more levels"):
        resolve("quantizer", {"name": "fsq", "levels": [4, 1]})
    with pytest.raises(ConfigError, match="residual"):
        resolve("quantizer", {"name": "residual", "quantizer": "residual"})


# -- against vector-quantize-pytorch ---------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    return pytest.importorskip("vector_quantize_pytorch")


def put(layer, weight, bias):
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)


def same_maps(ours, theirs):
    for name in ("project_in", "project_out"):
        layer = getattr(theirs, name)
        put(getattr(ours, name), layer.weight, layer.bias)


@pytest.mark.parametrize("levels", [[8, 5, 5], [4, 4], [7, 3, 6, 2 + 1]])
def test_fsq_is_theirs(reference, levels):
    theirs = reference.FSQ(levels=levels, dim=16)
    ours = make({"name": "fsq", "levels": levels})
    same_maps(ours, theirs)
    x = 3 * torch.randn(2, 50, 16)
    vectors, ids = theirs(x)
    found = ours(x)
    assert torch.equal(found.ids, ids.long())
    assert (found.vectors - vectors).abs().max() <= 1e-5
    everything = torch.arange(math.prod(levels))[None]
    assert (ours.lookup(everything) - theirs.indices_to_codes(everything)).abs().max() <= 1e-5


def test_lfq_is_theirs(reference):
    theirs = reference.LFQ(
        dim=16, codebook_size=64, entropy_loss_weight=0.3, commitment_loss_weight=0.2,
        diversity_gamma=0.7,
    ).train()  # fmt: skip
    ours = make({"name": "lfq", "bits": 6, "entropy": 0.3, "commitment": 0.2, "diversity": 0.7})
    same_maps(ours, theirs)
    x = 0.05 * torch.randn(2, 50, 16)
    (vectors, ids, loss), parts = theirs(x, return_loss_breakdown=True)
    found = ours.train()(x)
    assert torch.equal(found.ids, ids.long())
    assert (found.vectors - vectors).abs().max() <= 1e-5
    # Theirs cuts probabilities at 1e-5 inside the logarithm.
    assert abs(sum(found.losses.values()) - loss) <= 1e-4
    entropy = 0.3 * (parts.per_sample_entropy - 0.7 * parts.batch_entropy)
    assert abs(found.losses["entropy"] - entropy) <= 1e-4
    theirs.eval()
    everything = torch.arange(64)[None]
    assert (ours.lookup(everything) - theirs.indices_to_codes(everything)).abs().max() <= 1e-5


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("width", [None, 8])
def test_vq_is_theirs(reference, cosine, width):
    theirs = reference.VectorQuantize(
        dim=16, codebook_size=64, codebook_dim=width, use_cosine_sim=cosine
    ).eval()
    ours = make({"name": "vq", "size": 64, "width": width, "l2": cosine}).eval()
    if width:
        same_maps(ours, theirs)
    with torch.no_grad():
        ours.table.copy_(theirs._codebook.embed[0])
    x = torch.randn(2, 50, 16)
    vectors, ids, _ = theirs(x)
    found = ours(x)
    assert torch.equal(found.ids, ids)
    assert (found.vectors - vectors).abs().max() <= 1e-5


def test_running_means_are_theirs(reference):
    theirs = reference.VectorQuantize(
        dim=16, codebook_size=32, decay=0.8, threshold_ema_dead_code=0, commitment_weight=0.25
    ).train()
    ours = make({"name": "vq", "size": 32, "ema": 0.8}).train()
    with torch.no_grad():
        for mine, other in (("table", "embed"), ("sums", "embed_avg"), ("counts", "cluster_size")):
            getattr(ours, mine).copy_(getattr(theirs._codebook, other)[0])
    for _ in range(3):
        x = torch.randn(4, 30, 16)
        _, ids, loss = theirs(x)
        found = ours(x)
        assert torch.equal(found.ids, ids)
        assert abs(found.losses["commitment"] - loss) <= 1e-6
        assert (ours.table - theirs._codebook.embed[0]).abs().max() <= 1e-5


def test_residual_is_theirs(reference):
    theirs = reference.ResidualVQ(dim=16, num_quantizers=3, codebook_size=32).eval()
    ours = make({"name": "residual", "steps": 3, "quantizer": {"name": "vq", "size": 32}}).eval()
    with torch.no_grad():
        for mine, other in zip(ours.steps, theirs.layers, strict=True):
            mine.table.copy_(other._codebook.embed[0])
    x = torch.randn(2, 40, 16)
    vectors, ids, _ = theirs(x)
    found = ours(x)
    assert torch.equal(found.ids, ids)
    assert (found.vectors - vectors).abs().max() <= 1e-5


# -- what each is for ------------------------------------------------------------------------------


def test_the_gumbel_mixture_sharpens_and_the_divergence_grows():
    quantizer = make({"name": "gumbel", "size": 8, "kl": 6.0}, subpixels=2)
    quantizer.anneal(0.0)
    assert quantizer.temperature == 1.0 and quantizer.kl == 0.0
    quantizer.anneal(0.5)
    assert quantizer.temperature == pytest.approx(1 / 16) and quantizer.kl == 6.0
    x = torch.randn(3, 4, 16)
    q = quantizer.logits(x).softmax(-1)
    kl = (q * (q * 8).log()).sum(-1).mean()
    assert torch.allclose(quantizer.train()(x).losses["kl"], 6.0 / 2 * kl, rtol=1e-5)


def test_new_logits_are_spread_by_the_scale():
    x = torch.randn(50, 256)
    narrow, wide = (
        make({"name": "gumbel", "size": 64, "scale": scale}, width=256) for scale in (1.0, 5.0)
    )
    assert torch.allclose(wide.logits(x), 5 * narrow.logits(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kl", "diversity", "sure"), [(6.0, 0.0, False), (0.0, 6.0, True)])
def test_an_even_mean_leaves_each_place_sure_of_its_code(kl, diversity, sure):
    """Places that all choose alike: either divergence parts them, but for the one of each place's
    own choice they are even only when no place chooses any more."""
    config = {"name": "gumbel", "size": 8, "scale": 5.0, "kl": kl, "diversity": diversity}
    quantizer = make(config, subpixels=2).train()
    x = torch.randn(1, 200, 16)
    with torch.no_grad():
        quantizer.logits.bias[0] += 10
    quantizer.anneal(1.0)
    q = quantizer.logits(x).softmax(-1)
    assert q.mean((0, 1))[0] > 0.7
    if diversity:
        mean = q.mean((0, 1))
        apart = 6.0 / 2 * (mean * (mean * 8).log()).sum()
        assert torch.allclose(quantizer(x).losses["diversity"], apart, rtol=1e-4)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        sum(quantizer(x).losses.values()).backward()
        optimizer.step()
    q = quantizer.logits(x).softmax(-1)
    assert (q.mean((0, 1)) - 1 / 8).abs().max() < 0.02
    assert (q.amax(-1).mean() > 0.5) == sure


def test_idle_codes_come_back():
    """All vectors in one corner: most codes die, and with revival none does."""
    used = {}
    for revive in (None, 0.1):
        config = {"name": "vq", "size": 32, "ema": 0.9, "revive": revive}
        quantizer = make(config, width=4).train()
        for step in range(60):
            torch.manual_seed(step)
            quantizer(5 + torch.randn(1, 256, 4))
        quantizer.eval()
        ids = quantizer(5 + torch.randn(1, 2000, 4)).ids
        used[revive] = use_of(torch.bincount(ids.flatten(), minlength=32))["codes_used"]
    assert used[None] < 0.5 and used[0.1] > 0.9


def test_use_counts_codes():
    even = use_of(torch.full((16,), 5))
    assert even["codes_used"] == 1.0 and even["perplexity"] == pytest.approx(16)
    one = use_of(F.one_hot(torch.tensor(3), 16))
    assert one["codes_used"] == 1 / 16 and one["perplexity"] == pytest.approx(1)


def test_large_tables_are_searched_in_pieces():
    x, table = torch.randn(100, 4), torch.randn(50, 4)
    whole = (x @ table.T).argmax(-1)
    assert torch.equal(in_chunks(x, 50, lambda part: part @ table.T, limit=350), whole)
