"""The plugin works: it is found, its norm is one, its model learns."""

import torch

import zoo
from zoo.registry import build, read_node
from zoo.registry.plugins import describe


def test_zoo_finds_it_whole():
    (report,) = [report for report in describe() if report.name == "acme"]
    assert report.problems == ()
    assert report.adds == {"model": 1, "norm": 1, "data": 1}


def test_the_norm_gives_unit_mean_absolute_value():
    norm = build(read_node("norm", "acme/l1"), width=8)
    norm.reset_parameters()
    y = norm(torch.randn(5, 8) * 30)
    torch.testing.assert_close(y.abs().mean(-1), torch.ones(5))


def test_the_model_learns():
    data = build(read_node("data", "acme/squares", ["noise=0"])).split("train")
    batch = data.batch(range(64))
    model = zoo.create("acme/tiny", seed=0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(batch["pixels"]).logits, batch["labels"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
