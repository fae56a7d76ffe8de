"""Schedules: published shapes, warm-up, both ends."""

import math

import pytest

from zoo.registry import build, resolve


def schedule(kind, steps=100, **keys):
    return build(resolve("schedule", {"kind": kind, **keys}), steps=steps)


@pytest.mark.parametrize("kind", ["constant", "cosine", "linear", "inverse-sqrt"])
def test_warm_up_is_a_line_to_one(kind):
    factor = schedule(kind, warmup=10)
    assert [factor(s) for s in range(10)] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert factor(10) == pytest.approx(1, abs=0.05)


def test_cosine():
    factor = schedule("cosine", warmup=20, floor=0.1)
    assert factor(20) == 1
    assert factor(60) == pytest.approx(0.55)
    assert factor(40) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert factor(99) < 0.102 and factor(100) == factor(500) == pytest.approx(0.1)


def test_linear():
    factor = schedule("linear", warmup=50, floor=0.2)
    assert [factor(s) for s in (50, 75, 100, 200)] == pytest.approx([1, 0.6, 0.2, 0.2])


def test_constant_with_a_cooldown():
    assert {schedule("constant")(s) for s in range(100)} == {1.0}
    factor = schedule("constant", warmup=10, cooldown=20)
    assert [factor(s) for s in (50, 80, 90, 99, 100)] == pytest.approx([1, 1, 0.5, 0.05, 0])


def test_inverse_sqrt_is_the_papers():
    width, warmup = 512, 4000
    factor = schedule("inverse-sqrt", warmup=warmup)
    peak = (width * warmup) ** -0.5
    for step in (1, 500, 3999, 4000, 4001, 20_000):  # section 5.3 counts steps from 1
        paper = width**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert factor(step - 1) * peak == pytest.approx(paper, rel=1e-9)


def test_a_run_shorter_than_its_warm_up_only_warms_up():
    factor = schedule("cosine", steps=5, warmup=10)
    assert [factor(s) for s in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
