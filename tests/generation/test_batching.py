"""Continuous batching: everyone gets what they would get alone, and no page stays behind."""

import pytest
import torch

from tests.generation.conftest import make, plain
from tests.generation.test_equal import pool
from zoo.errors import ConfigError
from zoo.generation.batching import Batcher, Request
from zoo.generation.loop import decode
from zoo.generation.schema import options
from zoo.models.text.steps import CausalSteps

PROMPTS = [[5, 1, 30, 7], [2], [9, 9, 8, 1, 1, 3, 4, 4], [12, 30], [6, 5, 4, 3, 2, 1]]


def batcher(model, pages=40, most=3):
    return Batcher(lambda cache: CausalSteps(model, cache=cache), pool(model, pages), most)


def test_requests_join_and_leave_and_get_what_they_would_alone(model):
    runs = batcher(model)
    requests = []
    for index, prompt in enumerate(PROMPTS):  # they come while others run, and end at other times
        wanted = options(max_new_tokens=6 + 5 * index)
        requests.append(runs.submit(Request(prompt, wanted)))
        runs.step()
        runs.step()
    runs.run()
    for request in requests:
        assert request.tokens == plain(model, request.prompt, request.options.max_new_tokens)
    assert runs.pool.used == 0


def test_sampling_has_a_seed_of_its_own_for_each_request():
    model = make("llama")
    runs = batcher(model)
    wanted = [options(max_new_tokens=12, temperature=3.0, seed=s) for s in range(3)]
    requests = [runs.submit(Request([4, 5], o)) for o in wanted]
    runs.run()
    for request, own in zip(requests, wanted, strict=True):
        with torch.inference_mode():
            alone = decode(CausalSteps(model), torch.tensor([[4, 5]]), own)
        assert alone.tokens == [request.tokens]


def test_a_full_pool_makes_them_wait_and_a_hopeless_one_is_refused():
    model = make("gqa")
    runs = batcher(model, pages=4, most=8)  # 32 tokens: two requests of 16 at a time
    requests = [runs.submit(Request([1, 2], options(max_new_tokens=14))) for _ in range(5)]
    most = 0
    while runs.step():
        most = max(most, len(runs.running))
    assert most == 2 and all(len(r.tokens) == 14 for r in requests) and runs.pool.used == 0
    with pytest.raises(ConfigError, match="the pool holds 32"):
        runs.submit(Request([1] * 30, options(max_new_tokens=14)))
    with pytest.raises(ConfigError, match="without beams"):
        runs.submit(Request([1], options(beams=2)))


def test_cancelled_requests_give_their_pages_back():
    model = make("gqa")
    runs = batcher(model, pages=8, most=1)
    first = runs.submit(Request([1, 2], options(max_new_tokens=20)))
    second = runs.submit(Request([3], options(max_new_tokens=3)))
    runs.step()
    runs.cancel(first)
    third = runs.submit(Request([4], options(max_new_tokens=3)))
    runs.cancel(third)
    runs.run()
    assert first.done and len(first.tokens) < 20 and third.tokens == []
    assert second.tokens == plain(model, [3], 3)
    assert runs.pool.used == 0
