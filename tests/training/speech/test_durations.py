"""The loss of transducers with durations: enumeration, finite differences, transformers."""

import math

import pytest
import torch

from zoo.training.speech.durations import duration_losses


def problem(t=4, u=3, v=4, durations=(0, 1, 2), batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, t, u + 1, v + len(durations), generator=generator).double()
    targets = torch.randint(1, v, (batch, u), generator=generator)
    return 1.5 * logits, targets


def enumerated(logits, labels, durations, sigma=0.0):
    """Sum over every way through (token of sound, labels said), one step after another."""
    t, v = logits.shape[0], logits.shape[-1] - len(durations)
    spoken, lasting = logits[..., :v].log_softmax(-1) - sigma, logits[..., v:].log_softmax(-1)

    def ways(place, said):
        for index, d in enumerate(durations):
            so_long = float(lasting[place, said, index])
            if d:  # a blank
                score = float(spoken[place, said, 0]) + so_long
                if place + d == t and said == len(labels):
                    yield score
                elif place + d < t:
                    yield from (score + more for more in ways(place + d, said))
            if said < len(labels) and place + d < t:
                score = float(spoken[place, said, labels[said]]) + so_long
                yield from (score + more for more in ways(place + d, said + 1))

    found = list(ways(0, 0))
    assert found
    return -math.log(sum(map(math.exp, found)))


@pytest.mark.parametrize("durations", [(0, 1), (0, 1, 2), (1, 3), (2, 0, 1)])
@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_is_the_sum_over_all_alignments(durations, sigma):
    for seed, (t, u) in enumerate([(4, 3), (5, 1), (3, 0)]):
        logits, targets = problem(t, u, durations=durations, seed=seed)
        given = torch.tensor([t]), torch.tensor([u])
        found = duration_losses(logits, targets, *given, 0, durations, sigma)
        expected = enumerated(logits[0], targets[0].tolist(), durations, sigma)
        assert float(found) == pytest.approx(expected, rel=1e-9)


def test_its_gradient_is_that_of_finite_differences():
    logits, targets = problem(4, 2, batch=2)
    given = targets, torch.tensor([4, 3]), torch.tensor([2, 1]), 0, [0, 1, 2]
    assert torch.autograd.gradcheck(
        lambda x: duration_losses(x, *given), logits.requires_grad_(), atol=1e-6
    )


def test_what_is_past_the_ends_does_not_matter():
    durations = [0, 1, 2, 3, 4]
    logits, targets = problem(9, 4, durations=durations, batch=3)
    lengths, counts = torch.tensor([9, 6, 5]), torch.tensor([4, 2, 0])
    found = duration_losses(logits, targets, lengths, counts, 0, durations)
    for row in range(3):
        t, u = int(lengths[row]), int(counts[row])
        alone = logits[row : row + 1, :t, : u + 1], targets[row : row + 1, :u]
        expected = duration_losses(*alone, lengths[row, None], counts[row, None], 0, durations)
        torch.testing.assert_close(found[row], expected[0])


@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_is_transformers(sigma):
    tdt = pytest.importorskip("transformers.loss.loss_tdt", reason="compares with transformers")
    durations = [0, 1, 2, 3, 4]
    logits, targets = problem(30, 12, 9, durations, batch=3)
    logits = logits.float().requires_grad_()
    lengths, counts = torch.tensor([30, 21, 28]), torch.tensor([12, 5, 9])
    ours = duration_losses(logits, targets, lengths, counts, 0, durations, sigma)
    theirs = tdt.tdt_loss(
        *logits.split([9, 5], -1), targets, lengths, counts, 0, durations, sigma, "none"
    )
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-5, atol=1e-4)
    (gradient,) = torch.autograd.grad(ours.sum(), logits)
    (expected,) = torch.autograd.grad(theirs.sum(), logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)
