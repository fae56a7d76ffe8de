"""Steps of fixed shape: the tokens of ordinary ones; one graph whatever the prompt's length."""

import pytest
import torch
import torch._dynamo.testing

from tests.generation.conftest import plain
from zoo.errors import ConfigError
from zoo.generation import fixed
from zoo.generation.fixed import FixedSteps
from zoo.generation.loop import decode
from zoo.generation.schema import options
from zoo.generation.speculative import PromptLookup, speculate
from zoo.models.text.steps import CausalSteps

PROMPT = [5, 1, 30, 7, 7, 2, 9]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def steps(model, mask=None, batch=1, capacity=80, **more):
    return FixedSteps(model.fixed_scores, capacity, batch, mask=mask, **more)


@torch.inference_mode()
def test_tokens_are_those_of_recomputation(model):
    found = decode(steps(model), torch.tensor([PROMPT]), options(max_new_tokens=60))
    assert found.tokens == [plain(model, PROMPT, 60)]


@torch.inference_mode()
def test_ragged_batches_decode_as_single_prompts_do(model):
    prompts = [PROMPT, [3, 3, 12], [8]]
    tokens = torch.tensor([[0] * (7 - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (7 - len(p)) + [1] * len(p) for p in prompts])
    found = decode(steps(model, mask, 3), tokens, options(max_new_tokens=30))
    assert found.tokens == [plain(model, p, 30) for p in prompts]


@torch.inference_mode()
def test_scores_callbacks_and_speculation_see_the_same(gpt):
    expected = plain(gpt, PROMPT, 30)
    seen = []

    def watch(tokens, scores):
        seen.append(tokens.shape[1])
        return scores

    wanted = options(max_new_tokens=30)
    found = decode(steps(gpt), torch.tensor([PROMPT]), wanted, callbacks=[watch])
    assert found.tokens == [expected] and seen == list(range(7, 37))
    found, _ = speculate(steps(gpt), PROMPT, PromptLookup(), wanted, count=4)
    assert found.tokens == [expected]


@torch.inference_mode()
def test_sampling_draws_what_ordinary_steps_draw(gpt):
    wanted = options(max_new_tokens=30, temperature=3.0, top_k=9, seed=5)
    prompt = torch.tensor([PROMPT])
    assert decode(steps(gpt), prompt, wanted) == decode(CausalSteps(gpt), prompt, wanted)


@torch.inference_mode()
def test_rows_can_be_chosen_and_tokens_taken_back(gpt):
    prompt = torch.tensor([PROMPT, PROMPT[::-1]])
    one, other = steps(gpt, batch=2), CausalSteps(gpt)
    for each in (one, other):
        each.step(prompt)
        each.step(torch.tensor([[3], [4]]))
        each.select(torch.tensor([1, 0]))
        each.step(torch.tensor([[8], [9]]))
        each.rewind(2)
    after = torch.tensor([[11], [12]])
    torch.testing.assert_close(one.step(after), other.step(after))
    one.select(torch.tensor([1, 1, 0]))
    assert one.step(torch.tensor([[1], [2], [1]])).shape[0] == 3


@torch.inference_mode()
def test_a_full_buffer_is_an_error_in_one_sentence(gpt):
    full = steps(gpt, capacity=8)
    full.step(torch.tensor([PROMPT]))
    full.step(torch.tensor([[1]]))
    with pytest.raises(ConfigError, match="room for 8 tokens and 9 are asked for"):
        full.step(torch.tensor([[1]]))


@torch.inference_mode()
@pytest.mark.parametrize("family", ["llama"], indirect=True)
def test_three_prompts_compile_one_graph(model, monkeypatch):
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(fixed._scores, dynamic=False, fullgraph=True, backend=counter)
    monkeypatch.setattr(fixed, "_graphs", [compiled])
    for length in (3, 5, 7):
        each = steps(model, mode="compile")
        found = decode(each, torch.tensor([PROMPT[:length]]), options(max_new_tokens=20))
        assert found.tokens == [plain(model, PROMPT[:length], 20)]
    assert counter.frame_count == 1


@needs_gpu
@torch.inference_mode()
@pytest.mark.parametrize("sampling", [{}, {"temperature": 2.0, "top_k": 9, "seed": 3}])
def test_a_captured_graph_gives_the_tokens_of_eager_steps(model, sampling):
    model = model.cuda()
    wanted = options(max_new_tokens=60, **sampling)
    prompt = torch.tensor([PROMPT], device="cuda")
    graph = steps(model, device="cuda", mode="graph")
    found = decode(graph, prompt, wanted, check_every=8)
    eager = decode(steps(model, device="cuda"), prompt, wanted)
    assert found.tokens == eager.tokens and len(graph.graphs) == 1


@needs_gpu
@torch.inference_mode()
def test_the_loop_never_waits_for_the_device(gpt):
    gpt = gpt.cuda()
    graph, wanted = steps(gpt, device="cuda", mode="graph"), options()
    graph.step(torch.tensor([PROMPT], device="cuda"))
    token = graph.sample(torch.tensor([[3]], device="cuda"), wanted, None)  # captures
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            token = graph.sample(token[:, None], wanted, None)
    finally:
        torch.cuda.set_sync_debug_mode("default")
