"""Random numbers as functions: the published mixing function, even numbers, real permutations."""

import pytest
import torch

from zoo.data.draw import fold, mix, normal, permute, seeds_of, uniform

MASK = 2**64 - 1


def splitmix64(state: int) -> int:
    """The reference in Python's endless integers."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_mix_is_splitmix64():
    numbers = [0, 1, 2, 12345, 2**62, -1, -(2**63)]
    expected = [splitmix64(n & MASK) for n in numbers]
    assert [int(x) & MASK for x in mix(torch.tensor(numbers))] == expected
    # the first output of the published generator for seed 1234567
    assert int(mix(torch.tensor(1234567))) & MASK == 6457827717110365317


def test_fold_depends_on_every_number_and_on_their_order():
    seen = {fold(a, b) for a in range(30) for b in range(30)}
    assert len(seen) == 900 and all(0 <= s < 2**63 for s in seen)
    assert fold(1) != fold(1, 0) and fold(2**70 + 1) == fold(1)


def test_uniform_numbers_are_even_and_do_not_follow_each_other():
    seeds = seeds_of(7, torch.arange(50_000))
    numbers = uniform(seeds, 4)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert torch.allclose(numbers.mean(0), torch.full((4,), 0.5), atol=0.005)
    assert torch.allclose(numbers.var(0), torch.full((4,), 1 / 12), atol=0.002)
    lagged = torch.cat([numbers[:-1], numbers[1:]], dim=1).T
    assert (torch.corrcoef(lagged) - torch.eye(8)).abs().max() < 0.02
    assert not torch.equal(numbers, uniform(seeds, 4, stream=1))
    assert torch.equal(numbers[5:6, :2], uniform(seeds[5:6], 2))


def test_normal_numbers_are_normal():
    numbers = normal(torch.arange(50_000), 3)
    assert torch.allclose(numbers.mean(0), torch.zeros(3), atol=0.02)
    assert torch.allclose(numbers.std(0), torch.ones(3), atol=0.02)
    assert 0.67 < (numbers.abs() < 1).float().mean() < 0.70


@pytest.mark.parametrize("length", [1, 2, 3, 5, 16, 17, 360, 1437])
def test_permute_is_a_permutation(length):
    order = permute(torch.arange(length), length, seed=3)
    assert sorted(order.tolist()) == list(range(length))
    if length > 100:
        assert order.tolist() != permute(torch.arange(length), length, seed=4).tolist()
        fixed = (order == torch.arange(length)).sum()
        assert fixed < 8  # one is expected
    one = length // 2
    assert permute(torch.tensor([one]), length, seed=3).tolist() == [int(order[one])]


def test_permute_needs_no_memory_for_a_huge_set():
    order = permute(torch.arange(1000), 10**15, seed=0)
    assert len(set(order.tolist())) == 1000 and int(order.max()) < 10**15
    assert 0.45e15 < order.double().mean() < 0.55e15
