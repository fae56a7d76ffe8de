"""Speculation over what is no plain decoder, and what becomes of a drafter that does not pay."""

import time

import pytest
import torch

import zoo
from tests.generation.conftest import make, plain
from tests.models.generator import conftest as drawing
from zoo.errors import ConfigError
from zoo.generation.loop import decode
from zoo.generation.schema import options
from zoo.generation.speculative import ModelDrafter, PromptLookup, speculate
from zoo.generation.steps import Steps
from zoo.models.base import build_empty, initialise
from zoo.models.generator.steps import CodeSteps
from zoo.models.text.steps import CausalSteps, Seq2SeqSteps
from zoo.registry import resolve

PROMPT = [5, 1, 30, 7, 7, 2, 9]


def seq2seq(seed=0, depth=2):
    size = {"depth": depth, "width": 32, "attention": {"heads": 4}, "position": "t5"}
    decoder = {**size, "causal": True, "cross_attention": {"heads": 4}}
    mapping = {"kind": "seq2seq", "vocabulary": 37, "encoder": size, "decoder": decoder}
    model = initialise(build_empty(resolve("model", mapping)), seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model


@torch.inference_mode()
def test_an_encoder_decoder_is_drafted_by_a_smaller_one():
    model, source = seq2seq(), torch.tensor([[4, 9, 9, 1, 30, 2]])
    greedy = options(max_new_tokens=40)
    expected = decode(Seq2SeqSteps(model, source), torch.tensor([[0]]), greedy).tokens
    drafts = {
        "itself": ModelDrafter(Seq2SeqSteps(model, source), greedy),
        "smaller": ModelDrafter(Seq2SeqSteps(seq2seq(1, depth=1), source), greedy),
        "text": PromptLookup(),
    }
    reports = {}
    for name, drafter in drafts.items():
        steps = Seq2SeqSteps(model, source)
        found, reports[name] = speculate(steps, [0], drafter, greedy, count=4, patience=99)
        assert found.tokens == expected, name
    assert reports["itself"].acceptance == 1 and reports["itself"].passes < 12


@torch.inference_mode()
def test_a_drafter_that_costs_more_than_it_saves_is_dropped(gpt):
    class Slow:
        asked = 0

        def guess(self, tokens, count):
            self.asked += 1
            until = time.process_time() + 0.05  # a plain step takes a few milliseconds
            while time.process_time() < until:
                pass
            return [0] * count, None

    slow, greedy = Slow(), options(max_new_tokens=40)
    found, report = speculate(CausalSteps(gpt), PROMPT, slow, greedy, patience=4)
    assert found.tokens == [plain(gpt, PROMPT, 40)]
    assert report.gave_up and slow.asked <= 5
    for seed, gives_up in ((None, True), (0, False)):  # what a seed draws depends on no clock
        wanted = options(max_new_tokens=16, temperature=1.0, seed=seed)
        report = speculate(CausalSteps(gpt), PROMPT, Slow(), wanted, patience=4)[1]
        assert report.gave_up == gives_up


@torch.inference_mode()
def test_a_drafter_that_pays_is_kept():
    model = make("gpt", depth=6, width=64)

    class Oracle:
        def __init__(self, answer):
            self.answer = answer

        def guess(self, tokens, count):
            done = len(tokens) - len(PROMPT)
            return self.answer[done : done + count], None

    expected = plain(model, PROMPT, 40)
    found, report = speculate(
        CausalSteps(model), PROMPT, Oracle(expected), options(max_new_tokens=40)
    )
    assert found.tokens == [expected] and not report.gave_up and report.passes < 10


@torch.inference_mode()
def test_whisper_is_drafted_by_a_smaller_one():
    model, greedy = zoo.load("whisper-digits", dtype="fp32"), options(max_new_tokens=24)
    smaller = zoo.create("whisper-digits", "decoder.depth=1", "encoder.depth=1", seed=3).eval()
    mels, frames = model.config.sound.bins, 2 * model.config.encoder.length
    features = torch.randn(1, mels, frames, generator=torch.Generator().manual_seed(0))
    start = model.config.layout.prompt("en", "transcribe", False)
    expected = decode(Seq2SeqSteps(model, features), torch.tensor([start]), greedy).tokens
    for draft in (model, smaller):
        drafter = ModelDrafter(Seq2SeqSteps(draft, features), greedy)
        steps = Seq2SeqSteps(model, features)
        found, report = speculate(steps, start, drafter, greedy, patience=99)
        assert found.tokens == expected
        assert report.guessed > 0 and (draft is smaller or report.acceptance == 1)


@torch.inference_mode()
@pytest.mark.parametrize("way", ["dalle", "parti", "llamagen"])
def test_codes_of_a_picture_are_drafted_by_a_smaller_model(way):
    model, count = drawing.make(way), 16
    smaller = drawing.make(way, seed=5)
    condition = model.prompt(1, **drawing.asked(model, batch=1))
    greedy = options(max_new_tokens=count)
    nothing = torch.zeros(1, 0, dtype=torch.long)
    expected = decode(CodeSteps(model, condition), nothing, greedy).tokens
    for draft in (model, smaller):
        told = draft.prompt(1, **drawing.asked(model, batch=1))
        drafter = ModelDrafter(CodeSteps(draft, told), greedy)
        found, report = speculate(CodeSteps(model, condition), [], drafter, greedy, patience=99)
        assert found.tokens == expected and len(found.tokens[0]) == count
        assert report.guessed > 0 and (draft is smaller or report.acceptance == 1)


def test_callbacks_beside_a_temperature_are_refused(gpt):
    with pytest.raises(ConfigError, match="only where decoding is greedy"):
        speculate(
            CausalSteps(gpt), PROMPT, PromptLookup(), options(temperature=1.0),
            callbacks=[lambda tokens, scores: scores],
        )  # fmt: skip


def test_a_seed_makes_guessed_samples_the_same_again(gpt):
    smaller, found = make("gpt", seed=7), []
    for seed in (1, 1, 2):
        wanted = options(max_new_tokens=20, temperature=1.5, seed=seed)
        drafter = ModelDrafter(CausalSteps(smaller), wanted)
        found.append(speculate(CausalSteps(gpt), PROMPT, drafter, wanted, patience=99)[0].tokens)
    assert found[0] == found[1] != found[2]


def test_tokens_are_made_where_the_model_is(gpt):
    """Of a device that this machine need not have: nothing is looked up, only where it would be."""

    class Elsewhere(Steps):
        device = torch.device("meta")
        length = 0

        def step(self, tokens, every=False):
            assert tokens.device.type == "meta"
            self.length += tokens.shape[1]
            scores = torch.arange(9.0).roll(self.length).expand(1, tokens.shape[1], 9)
            return scores if every else scores[:, -1]

        def rewind(self, count):
            self.length -= count

    limit = options(max_new_tokens=12)
    drafter = ModelDrafter(Elsewhere(), limit)
    found, report = speculate(Elsewhere(), [1, 2], drafter, limit, scored=True, patience=99)
    assert len(found.tokens[0]) == 12 and report.guessed
    weights = CausalSteps(gpt.to("meta")), Seq2SeqSteps(seq2seq().to("meta"), None, memory=0)
    assert {steps.device.type for steps in weights} == {"meta"}
