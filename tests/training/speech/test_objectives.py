"""The speech objectives: their losses by definition, their error rates by jiwer."""

import math
import random

import pytest
import torch
from torch.nn import functional as F

import zoo
from zoo.errors import ConfigError
from zoo.registry import build, resolve
from zoo.training.speech.common import edits
from zoo.training.speech.durations import duration_losses

SMALL = ("backbone.depth=1", "backbone.width=32", "sound.subsampling.channels=8")


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(1, 29, (3, 6), generator=generator)
    return {
        "features": torch.randn(3, 60, 40, generator=generator),
        "lengths": torch.tensor([60, 48, 20]),
        "targets": targets,
        "target_lengths": torch.tensor([6, 4, 6]),
        "texts": ["one two", "six", "nine"],
        "valid": torch.tensor([True, True, False]),
    }


def make(kind, node, **keys):
    model = zoo.create(node, *SMALL, seed=0).eval()
    objective = build(resolve("objective", {"kind": kind, **keys}))
    objective.check(model, None)
    return model, objective


def test_ctc_is_pytorch_s_per_label(batch):
    model, objective = make("ctc", "conformer-ctc-digits")
    output = model(batch["features"], batch["lengths"])
    log_probs = output.logits.log_softmax(-1)
    expected = [
        F.ctc_loss(
            log_probs[i, : output.lengths[i], None],
            batch["targets"][i : i + 1, : batch["target_lengths"][i]],
            output.lengths[i : i + 1],
            batch["target_lengths"][i : i + 1],
            reduction="sum",
        )
        / batch["target_lengths"][i]
        for i in range(2)
    ]
    loss = objective(model, batch)
    # the third has 5 tokens of sound for 6 labels: it is skipped, and said to be
    assert torch.allclose(loss.value, sum(expected) / 3)
    assert float(loss.scalars["skipped"]) == pytest.approx(1 / 3)
    assert objective.weight(batch) == 3.0


def test_the_transducer_s_loss_is_the_sum_over_all_paths(batch):
    model, objective = make("transducer", "conformer-transducer-digits")
    output = model(batch["features"], batch["lengths"], batch["targets"])
    log_probs = output.logits[0].log_softmax(-1).double()
    labels, n = batch["targets"][0].tolist(), int(output.lengths[0])
    forward = {(0, 0): 0.0}
    for t in range(n):
        for u in range(len(labels) + 1):
            ways = []
            if t:
                ways.append(forward[t - 1, u] + float(log_probs[t - 1, u, 0]))
            if u:
                ways.append(forward[t, u - 1] + float(log_probs[t, u - 1, labels[u - 1]]))
            if ways:
                top = max(ways)
                forward[t, u] = top + math.log(sum(math.exp(w - top) for w in ways))
    total = forward[n - 1, len(labels)] + float(log_probs[n - 1, len(labels), 0])
    found, _ = objective.losses(model, batch)
    assert float(found[0]) == pytest.approx(-total / len(labels), rel=1e-4)


def test_the_loss_of_durations_is_per_label_too(batch):
    model = zoo.create("conformer-transducer-digits", *SMALL, durations=[0, 1, 2], seed=0).eval()
    objective = build(resolve("objective", {"kind": "transducer", "sigma": 0.05, "ctc": 0.2}))
    objective.check(model, None)
    output = model(batch["features"], batch["lengths"], batch["targets"])
    labels = batch["targets"], output.lengths, batch["target_lengths"]
    expected = duration_losses(output.logits, *labels, 0, [0, 1, 2], 0.05)
    found, _ = objective.losses(model, batch)
    torch.testing.assert_close(found, (expected / batch["target_lengths"]).float())
    objective(model, batch).value.backward()
    assert all(p.grad is not None for p in model.joint.parameters())


def test_where_nothing_is_said_the_loss_is_per_token_of_sound(batch):
    for kind in ("ctc", "transducer"):
        model, objective = make(kind, f"conformer-{kind}-digits")
        silent = {**batch, "target_lengths": torch.tensor([6, 0, 0])}
        output = model(
            silent["features"], silent["lengths"], *[silent["targets"]] * (kind != "ctc")
        )
        logits = output.logits if kind == "ctc" else output.logits[:, :, 0]
        blanks = logits[1, : output.lengths[1]].log_softmax(-1)[:, 0]
        found, _ = objective.losses(model, silent)
        torch.testing.assert_close(found[1], -blanks.mean())


def test_a_share_of_ctc_is_a_share(batch):
    model, plain = make("transducer", "conformer-transducer-digits")
    _, mixed = make("transducer", "conformer-transducer-digits", ctc=0.25)
    alone, both = plain(model, batch), mixed(model, batch)
    expected = 0.75 * alone.value + 0.25 * both.scalars["ctc"]
    assert torch.allclose(both.value, expected)


@pytest.mark.parametrize(
    ("kind", "node"),
    [("ctc", "conformer-ctc-digits"), ("transducer", "conformer-transducer-digits")],
)
def test_what_is_measured_leaves_out_what_is_not_valid(batch, kind, node):
    model, objective = make(kind, node)
    with torch.no_grad():
        found = objective.measure(model, batch)
    assert float(found["wer"][1]) == 3 and float(found["cer"][1]) == 10
    assert float(found["loss"][1]) == 2
    assert torch.isfinite(found["loss"][0])


def test_edits_are_jiwer_s():
    jiwer = pytest.importorskip("jiwer")
    rng = random.Random(0)
    for _ in range(40):
        said = [rng.choice("abcd") for _ in range(rng.randint(1, 9))]
        heard = [rng.choice("abcd") for _ in range(rng.randint(0, 9))]
        rate = jiwer.wer(" ".join(said), " ".join(heard))
        assert edits(said, heard) == round(rate * len(said))


def test_a_model_without_the_head_is_refused():
    model = zoo.create("conformer-ctc-digits", *SMALL, seed=0)
    with pytest.raises(ConfigError, match="trains transducer models"):
        build(resolve("objective", "transducer")).check(model, None)
    other = zoo.create("conformer-transducer-digits", *SMALL, ctc=False, seed=0)
    with pytest.raises(ConfigError, match="needs a second head"):
        build(resolve("objective", {"kind": "transducer", "ctc": 0.3})).check(other, None)
    narrow = zoo.create("conformer-ctc-digits", *SMALL, vocabulary=20, seed=0)
    with pytest.raises(ConfigError, match="20 labels do not hold"):
        build(resolve("objective", "ctc")).check(narrow, None)
