"""Guidance: its formula, its schedules over the passes, both ways to compute it."""

import math

import pytest
import torch

from tests.models.generator.conftest import asked, make, some_codes
from zoo.errors import ConfigError
from zoo.generation.guidance import Guidance
from zoo.generation.logits import guided
from zoo.models.generator.schema import draw_options
from zoo.models.generator.steps import FillSteps


def test_it_leads_away_from_what_nothing_asks_for():
    full, free = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])
    assert guided(full, free, 3.0).tolist() == [4.0, -2.0]
    assert torch.equal(guided(full, free, 1.0), full)
    assert torch.equal(guided(full, free, 0.0), free)


@pytest.mark.parametrize("schedule, middle, quarter", [
    ("constant", 5.0, 5.0), ("linear", 3.0, 2.0),
    ("cosine", 3.0, 1 + 4 * (1 - math.cos(math.pi / 4)) / 2)])  # fmt: skip
def test_schedules(schedule, middle, quarter):
    guidance = Guidance(scale=5.0, schedule=schedule)
    assert guidance.at(0.5) == pytest.approx(middle) and guidance.at(0.25) == pytest.approx(quarter)
    assert guidance.at(1.0) == pytest.approx(5.0)
    assert guidance.at(0.0) == (5.0 if schedule == "constant" else 1.0)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@torch.inference_mode()
def test_a_pass_is_guided_as_its_time_says(schedule):
    model = make("maskgit")
    codes, nothing = some_codes(model), model.prompt(3)
    condition = model.prompt(3, **asked(model))
    full, free = (model.score(codes, c).logits for c in (condition, nothing))
    for together in (True, False):
        guidance = Guidance(scale=4.0, schedule=schedule, together=together)
        steps = FillSteps(model, condition, nothing, guidance)
        for time in (0.0, 0.3, 1.0):
            expected = free + (full - free) * guidance.at(time)
            torch.testing.assert_close(steps(codes, time), expected, atol=1e-4, rtol=1e-4)


def test_a_schedule_is_for_models_with_passes():
    assert draw_options(False, {"guidance_schedule": "cosine"}).guidance_schedule == "cosine"
    with pytest.raises(ConfigError, match="guidance_schedule: this model writes code after code"):
        draw_options(True, {"guidance_schedule": "linear"})
    with pytest.raises(ConfigError, match="guidance_schedule"):
        draw_options(False, {"guidance_schedule": "quadratic"})


def test_a_temperature_of_zero_voids_the_choices_of_the_model():
    """What a model draws with by itself must not refuse its most probable codes."""
    own = {"top_p": 0.85, "guidance": 3.0}
    wanted = draw_options(True, own, {"temperature": 0.0})
    assert (wanted.top_p, wanted.guidance, wanted.temperature) == (None, 3.0, 0.0)
    assert draw_options(True, own, {"temperature": 0.5}).top_p == 0.85
    assert draw_options(True, own, {"temperature": 0.0, "top_p": 0.9}).top_p == 0.9  # their own
