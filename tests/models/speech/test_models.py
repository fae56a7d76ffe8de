"""Speech models: the body of tests that every kind runs through, and what is theirs alone."""

import pytest
import torch

import zoo
from tests.models.case import ModelCase
from zoo.errors import ConfigError
from zoo.models.base import build_empty

SMALL = ("backbone.depth=2", "backbone.width=32", "sound.subsampling.channels=8")


class TestCTC(ModelCase):
    node = "conformer-ctc-digits"
    overrides = SMALL

    def inputs(self, model, batch):
        return (torch.randn(batch, 50, 40),), {}

    def answer(self, output):
        return output.logits


class TestTransducer(TestCTC):
    node = "conformer-transducer-digits"
    overrides = (*SMALL, "prediction.width=24")

    def inputs(self, model, batch):
        return (torch.randn(batch, 50, 40), None, torch.randint(1, 29, (batch, 6))), {}

    def every_output(self, output):
        return output.logits.square().mean() + output.ctc_logits.square().mean()


def test_padding_changes_no_utterance():
    for node in ("conformer-ctc-digits", "conformer-transducer-digits"):
        model = zoo.create(node, *SMALL, seed=0).eval()
        x = torch.randn(1, 77, 40)
        alone = model(x)
        for extra in (1, 64, 300):
            padded = torch.cat([x, 20 * torch.randn(1, extra, 40)], 1)
            found = model(padded, torch.tensor([77]))
            n = int(alone.lengths[0])
            assert int(found.lengths[0]) == n
            assert (found.logits[:, :n] - alone.logits).abs().max() <= 1e-5


def test_an_utterance_of_nothing_harms_no_other():
    model = zoo.create("conformer-ctc-digits", *SMALL, seed=0).eval()
    x = torch.randn(3, 60, 40)
    found = model(x, torch.tensor([60, 0, 2]))
    assert found.lengths.tolist() == [15, 0, 1]
    assert torch.isfinite(found.logits).all()
    assert (found.logits[0] - model(x[:1]).logits[0]).abs().max() <= 1e-5


def test_the_published_sizes():
    for name, millions in {
        "conformer-small": 10.3,  # table 1 of the paper
        "conformer-medium": 30.7,
        "conformer-large": 118.8,
        "conformer-ctc-small": 13,  # NeMo's table
        "conformer-ctc-medium": 30.5,
        "conformer-ctc-large": 121,
        "fastconformer-transducer-small": 14,
        "fastconformer-transducer-medium": 32,
        "fastconformer-transducer-large": 115,
        "fastconformer-transducer-xlarge": 616,
        "parakeet-ctc-0.6b": 608.8,  # transformers' model of that config
        "parakeet-ctc-1.1b": 1062.5,
    }.items():
        found = sum(p.numel() for p in build_empty(zoo.config(name)).parameters()) / 1e6
        assert abs(found - millions) <= 0.06 * millions, (name, found)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="blank: 29 is none of the 29 labels"):
        zoo.config("conformer-ctc-digits", "blank=29")
    with pytest.raises(ConfigError, match="one of them must go on"):
        zoo.config("conformer-transducer-digits", "durations=[0]")
    with pytest.raises(ConfigError, match="gives no tokens of sound"):
        zoo.config("conformer-ctc-digits", "sound=byte")
