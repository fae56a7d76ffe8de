"""Prompt caches on disk: the same scores as without, or a refusal with its reason."""

import pytest
import torch

from tests.generation.conftest import make, plain
from zoo.errors import WeightsError
from zoo.generation.loop import decode
from zoo.generation.prompts import load_prompt, save_prompt
from zoo.generation.schema import options
from zoo.generation.speculative import PromptLookup, speculate
from zoo.models.text.steps import CausalSteps

PROMPT = [5, 1, 30, 7, 7, 2, 9, 4, 4, 1]


@torch.inference_mode()
def stored(model, path):
    steps = CausalSteps(model)
    scores = steps.step(torch.tensor([PROMPT]))
    save_prompt(path, model, PROMPT, steps.cache)
    return scores


@torch.inference_mode()
def test_a_stored_prompt_gives_the_same_scores(model, tmp_path):
    expected = stored(model, tmp_path / "p.safetensors")
    cache, covered = load_prompt(tmp_path / "p.safetensors", model, PROMPT)
    assert covered == len(PROMPT) - 1
    steps = CausalSteps(model, cache=cache)
    torch.testing.assert_close(steps.step(torch.tensor([PROMPT[covered:]])), expected)
    found = decode(steps, torch.tensor([[3]]), options(max_new_tokens=20))
    assert found.tokens == [plain(model, [*PROMPT, 3], 20)]


@torch.inference_mode()
def test_another_prompt_uses_what_is_common_and_speculation_goes_on(gpt, tmp_path):
    stored(gpt, tmp_path / "p.safetensors")
    other = [*PROMPT[:6], 11, 12]
    cache, covered = load_prompt(tmp_path / "p.safetensors", gpt, other)
    assert covered == 6 and cache.length == 6
    steps = CausalSteps(gpt, cache=cache)
    steps.step(torch.tensor([other[covered:-1]]))
    expected = plain(gpt, other, 20)
    found, _ = speculate(steps, other[-1:], PromptLookup(), options(max_new_tokens=20))
    assert found.tokens == [expected]
    assert load_prompt(tmp_path / "p.safetensors", gpt, [0, 1])[1] == 0


def test_other_weights_or_config_are_refused(gpt, tmp_path):
    path = tmp_path / "p.safetensors"
    stored(gpt, path)
    with pytest.raises(WeightsError, match="other weights; compute the prompt again"):
        load_prompt(path, make("gpt", seed=1), PROMPT)
    with pytest.raises(WeightsError, match="another config"):
        load_prompt(path, make("llama"), PROMPT)
