"""The average of the weights: its formula, and that it comes and goes without a trace."""

import pytest
import torch
from torch import nn

from zoo.training.ema import Average


def test_it_is_the_exponential_average_with_a_quick_start():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average, expected = Average(model, decay=0.9), 0.0
    for step in range(200):
        nn.init.constant_(model.weight, float(step))
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert float(average.values["weight"]) == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(199 - 9, rel=0.01)  # a line lags by decay / (1 - decay)


def test_it_is_applied_for_a_while_only():
    model = nn.Linear(2, 2)
    average = Average(model, decay=0.5)
    with torch.no_grad():
        model.weight.add_(1)
    weights, kept = model.weight.detach().clone(), average.values["weight"].clone()
    with pytest.raises(RuntimeError, match="stop"), average.applied():
        assert torch.equal(model.weight, kept)
        raise RuntimeError("stop")
    assert torch.equal(model.weight, weights) and torch.equal(average.values["weight"], kept)


def test_frozen_parameters_are_not_averaged():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert set(Average(model, 0.9).values) == {"weight"}
