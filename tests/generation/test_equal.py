"""However it is computed, greedy decoding gives the same tokens."""

import pytest
import torch

from tests.generation.conftest import VOCABULARY, make, plain
from zoo.generation.loop import decode
from zoo.generation.schema import options
from zoo.generation.speculative import ModelDrafter, PromptLookup, speculate
from zoo.models.text.steps import CausalSteps
from zoo.nn.cache import DynamicCache, SlidingCache, StaticCache
from zoo.nn.paged import PagedCache, PagePool

COUNT = 60
PROMPT = [5, 1, 30, 7, 7, 2, 9]


def pool(model, pages=40, page=8):
    heads = model.backbone.layers[0].attention
    return PagePool(pages, page, model.config.backbone.depth, heads.kv_heads, heads.head_dim)


class Gathered(PagedCache):
    """Pages read as a GPU reads them: copied together and aligned to the right."""

    by_row = False


def caches(model):
    return {
        "dynamic": DynamicCache(),
        "static": StaticCache(len(PROMPT) + COUNT),
        "paged": PagedCache(pool(model)),
        "gathered": Gathered(pool(model)),
    }


@torch.inference_mode()
def test_every_cache_decodes_as_recomputation_does(model):
    expected = plain(model, PROMPT, COUNT)
    assert len(set(expected)) > 2  # not one token for ever
    for name, cache in caches(model).items():
        steps = CausalSteps(model, cache=cache)
        found = decode(steps, torch.tensor([PROMPT]), options(max_new_tokens=COUNT))
        assert found.tokens == [expected], name


@torch.inference_mode()
def test_sequences_of_any_length_read_their_own_pages(model):
    """By row, gathered, and from pages that do not lie side by side: the same scores."""
    prompts, scores = [PROMPT, [3, 3, 12], [8] * 19], []
    for kind, page in ((PagedCache, 8), (Gathered, 8), (PagedCache, 2)):
        shared = pool(model, page=page)
        singles = [PagedCache(shared) for _ in prompts]
        for index in range(max(map(len, prompts))):  # in turn, so that their pages interleave
            for single, prompt in zip(singles, prompts, strict=True):
                if index < len(prompt):
                    CausalSteps(model, cache=single).step(torch.tensor([prompt[index : index + 1]]))
        if page == 2:
            assert max(len(single.sequences[0].runs()) for single in singles) > 1
        cache = kind(shared, [single.sequences[0] for single in singles])
        scores.append(CausalSteps(model, cache=cache).step(torch.tensor([[1], [2], [3]])))
    for prompt, token, row in zip(prompts, (1, 2, 3), scores[0], strict=True):
        alone = model(torch.tensor([[*prompt, token]])).logits[0, -1]
        torch.testing.assert_close(row, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores[0], scores[2], rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_sliding_cache_serves_a_window():
    model = make("window")
    cache = SlidingCache(12)
    steps = CausalSteps(model, cache=cache)
    found = decode(steps, torch.tensor([PROMPT]), options(max_new_tokens=COUNT))
    assert found.tokens == [plain(model, PROMPT, COUNT)]
    assert cache.length == len(PROMPT) + COUNT - 1
    assert cache.buffers[0][0].shape[2] <= 64


@torch.inference_mode()
def test_ragged_batches_decode_as_single_prompts_do(model):
    prompts = [PROMPT, [3, 3, 12], [8]]
    longest = max(map(len, prompts))
    tokens = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    found = decode(CausalSteps(model, mask), tokens, options(max_new_tokens=COUNT))
    assert found.tokens == [plain(model, p, COUNT) for p in prompts]


@torch.inference_mode()
@pytest.mark.parametrize("paged", [False, True])
def test_speculation_changes_no_token(model, family, paged):
    expected = plain(model, PROMPT, COUNT)
    greedy = options(max_new_tokens=COUNT)
    draft = make(family, seed=0, depth=1)
    for drafter in (PromptLookup(), ModelDrafter(CausalSteps(draft), greedy)):
        cache = PagedCache(pool(model)) if paged else DynamicCache()
        found, report = speculate(CausalSteps(model, cache=cache), PROMPT, drafter, greedy, count=4)
        assert found.tokens == [expected]
        assert report.passes <= COUNT and report.accepted <= report.guessed


@torch.inference_mode()
def test_a_perfect_draft_is_always_accepted(gpt):
    greedy = options(max_new_tokens=COUNT)
    drafter = ModelDrafter(CausalSteps(gpt), greedy)
    # patience: a draft as large as the model saves no time, so it must not be held to that
    found, report = speculate(CausalSteps(gpt), PROMPT, drafter, greedy, count=5, patience=99)
    assert found.tokens == [plain(gpt, PROMPT, COUNT)]
    assert report.acceptance == 1.0 and report.passes < COUNT / 4


@torch.inference_mode()
def test_sampling_with_a_draft_keeps_the_distribution(gpt):
    """Chi-square of the second token against its exact probabilities, by the law of total
    probability over the first."""
    sampling = options(max_new_tokens=2, temperature=4.0, seed=0)
    prompt = [4, 9]
    first = (gpt(torch.tensor([prompt])).logits[0, -1] / 4).softmax(-1)
    every = torch.tensor([[*prompt, t] for t in range(VOCABULARY)])
    exact = first @ (gpt(every).logits[:, -1] / 4).softmax(-1)
    draft, runs = make("gpt", seed=1, depth=1), 1500
    counts = torch.zeros(VOCABULARY)
    for seed in range(runs):
        sampling.seed = seed
        generator = torch.Generator().manual_seed(10_000 + seed)
        drafter = ModelDrafter(CausalSteps(draft), sampling, generator)
        found, _ = speculate(CausalSteps(gpt), prompt, drafter, sampling, count=1)
        counts[found.tokens[0][1]] += 1
    expected = exact * runs
    large = expected >= 5
    statistic = ((counts - expected) ** 2 / expected)[large].sum()
    degrees = int(large.sum()) - 1
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5  # four standard deviations


def test_pages_come_back():
    model = make("gqa")
    shared = pool(model, pages=12)
    cache = PagedCache(shared)
    with torch.inference_mode():
        CausalSteps(model, cache=cache).step(torch.tensor([PROMPT]))
        fork = cache.fork()
        assert shared.used == 1  # shared until one of them writes
        a = CausalSteps(model, cache=cache).step(torch.tensor([[3]]))
        b = CausalSteps(model, cache=fork).step(torch.tensor([[3]]))
        assert shared.used == 2
        assert torch.equal(a, b)
    cache.free()
    fork.free()
    assert shared.used == 0
