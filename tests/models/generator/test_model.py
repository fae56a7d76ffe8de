"""What every way of drawing must have: causality, caches that change nothing, guidance, seeds,
known codes that stay, prompts that are read."""

import pytest
import torch

from tests.models.generator.conftest import CODES, GRID, STACK, WAYS, asked, make, some_codes
from zoo.errors import ConfigError
from zoo.models.generator.sample import UNKNOWN, sample
from zoo.models.generator.schema import draw_options
from zoo.models.generator.steps import CodeSteps
from zoo.registry import resolve

CAUSAL = [way for way in WAYS if WAYS[way]["backbone"].get("causal")]


def drawn(model, known=None, seed=0, prompt_seed=1, batch=3, **options):
    torch.manual_seed(99)  # nothing may be drawn from torch's own generator
    condition = model.prompt(batch, **asked(model, batch, prompt_seed))
    if known is None:
        known = torch.full((batch, some_codes(model).shape[1]), UNKNOWN)
    wanted = draw_options(model.config.causal, {"seed": seed, **options})
    with torch.inference_mode():
        *_, last = sample(model, known, condition, model.prompt(batch), wanted)
    return last


@pytest.mark.parametrize("way", CAUSAL)
@torch.inference_mode()
def test_a_code_depends_on_those_before_it_alone(way):
    model = make(way)
    codes, prompt = some_codes(model), asked(model)
    before = model(codes, **prompt).logits
    for place in (0, 5, 15):
        other = codes.clone()
        other[:, place] = (other[:, place] + 1) % CODES
        after = model(other, **prompt).logits
        assert torch.equal(before[:, : place + 1], after[:, : place + 1])
        assert place == 15 or not torch.allclose(before[:, place + 1 :], after[:, place + 1 :])


@pytest.mark.parametrize("way", CAUSAL)
@torch.inference_mode()
def test_steps_with_a_cache_are_the_whole(way):
    model = make(way)
    codes = some_codes(model)
    condition = model.prompt(3, **asked(model))
    whole = model.score(codes, condition).logits
    steps = CodeSteps(model, condition)
    found = [steps.step(codes[:, :0])] + [steps.step(codes[:, i : i + 1]) for i in range(15)]
    torch.testing.assert_close(torch.stack(found, 1), whole, atol=1e-4, rtol=1e-5)
    steps = CodeSteps(model, condition)  # a primed beginning at once
    torch.testing.assert_close(steps.step(codes[:, :7]), whole[:, 7], atol=1e-4, rtol=1e-5)


@torch.inference_mode()
def test_every_prompt_is_read(model):
    codes = some_codes(model)
    if not model.config.causal:
        codes = torch.full_like(codes, model.mask_code)
    logits = [model(codes, **asked(model, seed=seed)).logits for seed in (1, 2)]
    assert not torch.allclose(*logits)
    assert not torch.allclose(logits[0], model(codes).logits)  # nothing is another prompt
    assert logits[0].shape == (3, codes.shape[1], CODES)  # and never the mask


def test_same_seed_same_codes_and_guidance_one_is_none(model):
    first = drawn(model, guidance=2.0)
    assert torch.equal(first, drawn(model, guidance=2.0))
    assert not torch.equal(first, drawn(model, guidance=2.0, seed=1))
    assert not torch.equal(first, drawn(model, guidance=2.0, prompt_seed=3))
    assert torch.equal(first, drawn(model, guidance=2.0, together=False))
    condition = model.prompt(3, **asked(model))
    known = torch.full_like(first, UNKNOWN)
    wanted = draw_options(model.config.causal, {"seed": 0, "guidance": 1.0})
    with torch.inference_mode():
        *_, free = sample(model, known, condition, None, wanted)
    assert torch.equal(free, drawn(model, guidance=1.0))
    assert not torch.equal(free, first)


def test_known_codes_stay(model):
    codes = some_codes(model)
    known = torch.full_like(codes, UNKNOWN)
    known[:, 1:4] = codes[:, 1:4]
    known[0, 9] = codes[0, 9]
    found = drawn(model, known)
    kept = known != UNKNOWN
    assert torch.equal(found[kept], known[kept])
    assert found.min() >= 0 and found.max() < CODES
    assert torch.equal(drawn(model, codes)[:, :-1], codes[:, :-1])  # nothing left to draw


def test_priming_reads_the_beginning_at_once():
    """The same codes forced one by one and read as one prompt draw the same rest."""
    model = make("dalle")
    codes = some_codes(model)
    primed = torch.where(torch.arange(16) < 6, codes, UNKNOWN)
    condition = model.prompt(3, **asked(model))
    wanted = draw_options(True, {"seed": 3, "temperature": 0.0, "guidance": 1.0})
    with torch.inference_mode():
        *_, found = sample(model, primed, condition, None, wanted)
        slow = primed.clone()
        for place in range(6, 16):
            filled = slow.clamp(min=0)
            slow[:, place] = model.score(filled, condition).logits[:, place].argmax(-1)
    assert torch.equal(found, slow)


def test_a_clip_may_be_shorter():
    model = make("phenaki")
    first = model(torch.zeros(2, 1, 2, 2, dtype=torch.long)).logits
    assert first.shape == (2, 4, CODES)
    flat = model(torch.zeros(2, 8, dtype=torch.long), grid=(2, 2, 2)).logits
    assert flat.shape == (2, 8, CODES)


@torch.inference_mode()
def test_a_smaller_picture_is_read():
    """Enlarging: codes of another tokenizer, read by a stack of their own beside the prompt."""
    model = make("muse")
    small = type("Small", (), {"codebook_size": 8, "video": False, "image": (2, 2),
                               "grid": lambda self, shape: shape})()  # fmt: skip
    from zoo.models.generator.prompt import SmallPicture

    config = model.config
    config.source, config.source_encoder = (
        small,
        resolve("backbone", {"kind": "transformer", **STACK}),
    )
    model.prompt.source = SmallPicture(config, model.prompt.width)
    for p in model.prompt.source.parameters():
        torch.nn.init.normal_(p)
    codes, prompt = torch.full((3, 16), CODES), asked(model)
    one, two = (model(codes, source=torch.full((3, 4), k), **prompt).logits for k in (0, 5))
    assert not torch.allclose(one, two)
    assert not torch.allclose(one, model(codes, source=torch.zeros(3, 4).long()).logits)


WRONG = {
    "a prompt is one of text_length and classes": {**WAYS["prefix"], "classes": 3},
    "nothing says what is drawn; name a tokenizer": {**WAYS["prefix"], "codes": None},
    "needs a token before the first code; set start=true": {
        **WAYS["parti"], "start": False},
    "a prompt before the codes has one length": {**WAYS["prefix"], "text_pads": False},
    "text_head: needs a text before the codes": {**WAYS["prefix"], "text_head": True},
    "top_p: this model fills in masked codes": {**WAYS["prefix"], "sampling": {"top_p": 0.5}},
    "steps: this model writes code after code": {**WAYS["dalle"], "sampling": {"steps": 8}},
    "visual: a vit model gives no codes": {**WAYS["prefix"], "visual": {"kind": "vit"}},
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_what_does_not_go_together_is_one_sentence(message):
    with pytest.raises(ConfigError, match=message):
        resolve("model", {"kind": "generator", "codes": CODES, "grid": GRID, **WRONG[message]})


def test_a_causal_model_draws_one_grid():
    model = make("dalle")
    wanted = draw_options(True, {})
    with pytest.raises(ConfigError, match="code after code draws"):
        next(sample(model, torch.full((1, 8), -1), model.prompt(1), None, wanted, grid=(2, 4)))
