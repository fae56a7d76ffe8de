"""Decoders and encoder-decoders by their nodes: 200 greedy tokens, whichever way they are
computed."""

import pytest
import torch

import zoo
from tests.generation.conftest import plain
from tests.generation.test_equal import PROMPT, pool
from zoo.generation.fixed import FixedSteps
from zoo.generation.loop import decode
from zoo.generation.schema import options
from zoo.generation.speculative import PromptLookup, speculate
from zoo.models.base import build_empty, initialise
from zoo.models.text.steps import CausalSteps, Seq2SeqSteps
from zoo.nn.cache import DynamicCache, StaticCache
from zoo.nn.paged import PagedCache, PagePool
from zoo.registry import resolve

COUNT = 200
GROUPS = {"gpt1": 4, "gpt2": 4, "gpt3": 4, "bloom": 4, "mpt": 4, "falcon": 1, "gpt-bigcode": 1}
GROUPS |= {"llama": 2, "llama-3.1": 2, "mistral": 2, "qwen2": 2, "qwen3": 2}
SEQ2SEQ = ["t5-small", "flan-t5-small", "umt5-small", "ul2", "opus-mt-en-de", "transformer-base"]
SEQ2SEQ += ["wmt19-de-en-6-6-base"]


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


def seq2seq(name):
    attention = {"heads": 4, "head_dim": 8}
    size = {"depth": 2, "width": 32, "length": 256, "attention": attention}
    stacks = {
        f"{stack}.{key}": value for stack in ("encoder", "decoder") for key, value in size.items()
    }
    special = {"pad": 0, "eos": 1, "start": 0}
    model = zoo.create(
        name,
        seed=0,
        vocabulary=37,
        tied=False,
        head_scale=1.0,
        special=special,
        **stacks,
        **{"decoder.cross_attention": attention},
    ).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(6)
    return model


@torch.inference_mode()
@pytest.mark.parametrize("name", SEQ2SEQ)
def test_all_ways_of_an_encoder_decoder_give_the_same_200_tokens(name):
    model, source, start = seq2seq(name), torch.tensor([[4, 9, 9, 2, 30, 2, 17]]), [0]
    tokens = list(start)
    for _ in range(COUNT):  # everything anew at every step
        tokens.append(int(model(source, torch.tensor([tokens])).logits[0, -1].argmax()))
    expected, greedy, first = tokens[1:], options(max_new_tokens=COUNT), torch.tensor([start])
    assert len(set(expected)) > 2
    paged = PagePool(40, 8, 2, 4, 8)
    for cache in (DynamicCache(), StaticCache(256), PagedCache(paged)):
        found = decode(Seq2SeqSteps(model, source, cache=cache), first, greedy)
        assert found.tokens == [expected], type(cache).__name__
    memory = model.encode(source)

    def forward(tokens, mask, cache, last):
        return model.decode(tokens, memory, None, mask, cache=cache, last=last).logits

    assert decode(FixedSteps(forward, 256), first, greedy).tokens == [expected]
    found, _ = speculate(Seq2SeqSteps(model, source), start, PromptLookup(), greedy, patience=999)
    assert found.tokens == [expected]
    both = torch.tensor([[8, 3, 5, 0, 0, 0, 0], source[0].tolist()])
    steps = Seq2SeqSteps(model, both, torch.tensor([[1] * 3 + [0] * 4, [1] * 7]))
    assert decode(steps, first.expand(2, -1), greedy).tokens[1] == expected
