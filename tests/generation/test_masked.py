"""Masked-iterative samplers: token for token those of diffusers, each named one its own way."""

import math

import pytest
import torch

from zoo.errors import ConfigError, UnknownName
from zoo.generation.masked import SAMPLERS, masked_options, masked_steps

MASK, B, N, V = 40, 3, 64, 40


def scores(seed=0):
    torch.manual_seed(seed)
    return 3 * torch.randn(B, N, V)


@pytest.mark.parametrize("steps", [1, 2, 5, 12])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_amused_is_diffusers_scheduler_token_for_token(steps, schedule):
    scheduling = pytest.importorskip("diffusers.schedulers.scheduling_amused")
    theirs = scheduling.AmusedScheduler(mask_token_id=MASK, masking_schedule=schedule)
    theirs.set_timesteps(steps, temperature=(2, 0))
    generator = torch.Generator().manual_seed(7)
    tokens, expected = torch.full((B, N), MASK), []
    for index, timestep in enumerate(theirs.timesteps):
        tokens = theirs.step(scores(index), timestep, tokens, generator=generator).prev_sample
        expected.append(tokens)
    wanted = masked_options("amused", steps=steps, schedule=schedule, seed=7)
    found = masked_steps(
        lambda t, time: scores(round(time * steps)), torch.full((B, N), MASK), MASK, wanted
    )
    for ours, other in zip(found, expected, strict=True):
        assert torch.equal(ours, other)


def test_lucidrains_masks_the_least_probable_again_without_noise():
    fixed = scores()
    wanted = masked_options("lucidrains", steps=4, seed=0, temperature=0.0)
    first = next(masked_steps(lambda t, time: fixed, torch.full((B, N), MASK), MASK, wanted))
    count = math.floor(N * math.cos(math.pi / 8))
    least = fixed.softmax(-1).amax(-1).argsort(-1)[:, :count]
    assert torch.equal(first == MASK, torch.zeros(B, N, dtype=torch.bool).scatter(1, least, True))


def test_top_share_keeps_the_best_and_temperature_falls():
    fixed = torch.arange(V).float().expand(B, N, V) / 10
    wanted = masked_options("lucidrains", steps=3, seed=0)
    *_, last = masked_steps(lambda t, time: fixed, torch.full((B, N), MASK), MASK, wanted)
    assert last.min() >= V - 4  # a tenth of the vocabulary


def test_a_critic_decides_what_is_drawn_again():
    def critic(tokens, time):
        return -torch.arange(N).expand(B, N).float()  # trusts the first places

    wanted = masked_options("token-critic", steps=4, seed=0, choice_temperature=0.0)
    first = next(
        masked_steps(lambda t, time: scores(), torch.full((B, N), MASK), MASK, wanted, critic)
    )
    hidden = (first == MASK)[0].long()
    assert torch.equal(hidden, hidden.sort().values)


def test_unknown_samplers_and_options_are_one_sentence():
    with pytest.raises(UnknownName, match=r"Unknown sampler 'maskgti'.*maskgit"):
        masked_options("maskgti")
    with pytest.raises(ConfigError, match="steps"):
        masked_options(steps=0)
    assert set(SAMPLERS) == {"maskgit", "amused", "lucidrains", "token-critic"}
