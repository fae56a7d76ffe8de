"""Continuous batching: everyone gets what they would get alone, and no page stays behind."""

import collections
import random

import pytest
import torch

from tests.generation.conftest import VOCABULARY, make, plain
from tests.generation.test_equal import pool
from zoo.errors import ConfigError
from zoo.generation import batching
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


def tables(runs):
    """Returns every table of pages that something of a batcher holds."""
    holders = [*runs.running, *runs.kept, *runs.reading]
    return [r.pages.pages for r in holders]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_pages_add_up_and_answers_are_those_of_one_alone(seed):
    """Prompts that begin alike, more than there is room for, cancelled at any time."""
    chance, model = random.Random(seed), make("gqa")
    runs = Batcher(
        lambda cache: CausalSteps(model, cache=cache),
        pool(model, pages=14, page=4),
        most=4,
        chunk=chance.choice([None, 3, 7]),
        keep=chance.choice([0, 2, 5]),
    )
    stem = [chance.randrange(VOCABULARY) for _ in range(20)]
    requests, shared = [], 0
    for _ in range(60):
        if len(requests) < 24 and chance.random() < 0.7:
            prompt = [*stem[: chance.randrange(1, 20)], chance.randrange(VOCABULARY)]
            wanted = options(max_new_tokens=chance.randrange(1, 9))
            requests.append(runs.submit(Request(prompt, wanted)))
        if requests and chance.random() < 0.15:
            runs.cancel(chance.choice(requests))
        runs.step()
        held = collections.Counter(page for table in tables(runs) for page in table)
        assert [held[page] for page in range(14)] == runs.pool.holders
        assert runs.pool.available == {page for page in range(14) if not held[page]}
        shared = max(shared, *held.values(), 0)
    runs.run()
    assert shared > 1  # some pages did serve several
    for request in requests:
        assert request.done
        expected = plain(model, request.prompt, request.options.max_new_tokens)
        assert request.tokens == expected[: len(request.tokens)]
        assert request.cancelled or len(request.tokens) == len(expected)
    runs.clear()
    assert runs.pool.used == 0


def test_a_prompt_that_begins_like_another_is_not_read_again(model):
    read = []

    class Counting(CausalSteps):
        def read(self, prompts):
            read.append([len(prompt) for prompt in prompts])
            return super().read(prompts)

    runs = Batcher(lambda cache: Counting(model, cache=cache), pool(model), keep=2)
    stem = [(7 * i) % VOCABULARY for i in range(21)]  # two pages and a half
    first = runs.submit(Request(stem, options(max_new_tokens=5)))
    runs.run()
    read.clear()
    again = [runs.submit(Request([*stem, *first.tokens, 3], options(max_new_tokens=5)))]
    again += [runs.submit(Request([*stem[:18], 1], options(max_new_tokens=5))) for _ in range(2)]
    runs.run()
    assert read == [[2, 1, 1]]  # the end token and what follows; the rest is there
    for request in again:
        assert request.tokens == plain(model, request.prompt, 5)
    runs.clear()
    assert runs.pool.used == 0


def test_waiting_prompts_are_read_side_by_side_where_the_parts_allow_it(model, family):
    rows = []
    model.backbone.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[:2]))
    runs = batcher(model, most=8)
    requests = [runs.submit(Request(prompt, options(max_new_tokens=7))) for prompt in PROMPTS]
    runs.step()
    together = family not in ("bloom", "t5-bias")  # whose scores depend on both ends of a distance
    lengths = [len(prompt) for prompt in PROMPTS]
    assert rows[:-1] == ([(1, sum(lengths))] if together else [(1, n) for n in lengths])
    assert rows[-1] == (len(PROMPTS), 1)
    runs.run()
    for request in requests:
        assert request.tokens == plain(model, request.prompt, 7)
    assert runs.pool.used == 0


def test_a_pass_reads_so_many_tokens_and_prompts_that_begin_alike_come_after(monkeypatch):
    monkeypatch.setattr(batching, "TOGETHER", 12)
    model, rows = make("gqa"), []
    model.backbone.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[1]))
    runs = batcher(model, most=8)
    stem = [(5 * i) % VOCABULARY for i in range(17)]  # two pages, and longer than a pass
    prompts = [stem, [1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13], [*stem, 2], [*stem[:9], 4]]
    requests = [runs.submit(Request(prompt, options(max_new_tokens=3))) for prompt in prompts]
    runs.step()
    assert rows == [17, 11, 2 + 1 + 1, 1]  # the last two go on from the first one's pages
    runs.run()
    for request in requests:
        assert request.tokens == plain(model, request.prompt, 3)


def test_a_pass_that_fails_loses_no_request():
    class Failing(CausalSteps):
        def read(self, prompts):
            raise RuntimeError("out of memory")

    model = make("gpt")
    runs = Batcher(lambda cache: Failing(model, cache=cache), pool(model, 40), 2)
    requests = [runs.submit(Request(prompt, options())) for prompt in PROMPTS]
    with pytest.raises(RuntimeError):
        runs.step()
    assert set(map(id, runs.clear())) == set(map(id, requests)) and runs.pool.used == 0


def test_prompts_are_read_a_chunk_at_a_time_while_others_go_on():
    model = make("llama")
    runs = Batcher(lambda cache: CausalSteps(model, cache=cache), pool(model), chunk=4)
    short = runs.submit(Request([5, 6], options(max_new_tokens=12)))
    runs.step()
    long = runs.submit(
        Request([(3 * i) % VOCABULARY for i in range(18)], options(max_new_tokens=3))
    )
    before = []
    while not long.tokens:
        before.append(len(short.tokens))
        runs.step()
    assert len(before) == 5 and before == list(range(before[0], before[0] + 5))
    runs.run()
    for request in (short, long):
        assert request.tokens == plain(model, request.prompt, request.options.max_new_tokens)


def test_an_answer_ends_where_it_is_told_to():
    model = make("gqa")
    runs, seen = batcher(model), []
    request = Request(
        [4, 5], options(max_new_tokens=30), emit=lambda t: seen.append(t) or len(seen) == 4
    )
    runs.submit(request)
    runs.run()
    assert request.done and seen == request.tokens == plain(model, [4, 5], 4)
    assert runs.pool.used == 0


def test_log_probabilities_come_with_the_tokens():
    model = make("gqa")
    runs = batcher(model)
    request = runs.submit(Request([4, 5], options(max_new_tokens=3), best=2))
    runs.run()
    with torch.inference_mode():
        logs = model(torch.tensor([[4, 5, *request.tokens]])).logits[0, 1:].log_softmax(-1)
    for score, row, token in zip(request.scores, logs, request.tokens, strict=False):
        assert score.chosen == pytest.approx(float(row[token]), abs=1e-4)
        assert [t for t, _ in score.best] == row.topk(2).indices.tolist()
