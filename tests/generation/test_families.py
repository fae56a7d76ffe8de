"""Ten decoder families by their nodes: 200 greedy tokens, whichever way they are computed."""

import pytest
import torch

from tests.generation.conftest import plain
from tests.generation.test_equal import PROMPT, pool
from zoo.generation.fixed import FixedSteps
from zoo.generation.loop import decode
from zoo.generation.schema import options
from zoo.generation.speculative import PromptLookup, speculate
from zoo.models.base import build_empty, initialise
from zoo.models.text.steps import CausalSteps
from zoo.nn.cache import DynamicCache, StaticCache
from zoo.nn.paged import PagedCache
from zoo.registry import resolve

COUNT = 200
GROUPS = {"gpt1": 4, "gpt2": 4, "gpt3": 4, "bloom": 4, "mpt": 4, "falcon": 1, "gpt-bigcode": 1}
GROUPS |= {"llama": 2, "llama-3.1": 2, "mistral": 2}


@torch.inference_mode()
@pytest.mark.parametrize("family", GROUPS)
def test_all_ways_give_the_same_200_tokens(family):
    attention = {"heads": 4, "kv_heads": GROUPS[family], "head_dim": 8}
    size = {"depth": 2, "width": 32, "length": 256, "attention": attention}
    mapping = {"kind": "causal-lm", "vocabulary": 37, "tied": False}
    mapping["backbone"] = {"name": family, **size}
    model = initialise(build_empty(resolve("model", mapping)), 0).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(8)
    greedy, prompt = options(max_new_tokens=COUNT), torch.tensor([PROMPT])
    expected = plain(model, PROMPT, COUNT)
    assert len(set(expected)) > 2
    kept = (DynamicCache(), StaticCache(256), PagedCache(pool(model)))
    ways = {type(cache).__name__: CausalSteps(model, cache=cache) for cache in kept}
    ways["FixedSteps"] = FixedSteps(model.fixed_scores, 256)
    for name, steps in ways.items():
        assert decode(steps, prompt, greedy).tokens == [expected], name
    found, _ = speculate(CausalSteps(model), PROMPT, PromptLookup(), greedy, count=4, patience=999)
    assert found.tokens == [expected]
    shorter = [9, *PROMPT[-3:]]
    rows = torch.tensor([PROMPT, [0] * (len(PROMPT) - len(shorter)) + shorter])
    mask = torch.tensor([[1] * 7, [0] * 3 + [1] * 4])
    batched = decode(CausalSteps(model, mask), rows, greedy)
    assert batched.tokens[0] == expected
