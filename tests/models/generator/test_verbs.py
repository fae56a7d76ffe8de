"""What a person asks of a model that draws, beside a prompt: what not to draw, another codebook."""

import pytest
import torch

import zoo
from zoo.errors import ConfigError, DataError
from zoo.models.generator.sample import UNKNOWN, sample
from zoo.models.generator.schema import draw_options


@pytest.fixture(scope="module")
def muse():
    return zoo.load("muse-digits")


@torch.inference_mode()
def test_a_negative_prompt_takes_the_place_of_none(muse):
    text, other = "a handwritten red three", "a handwritten blue three"
    options = {"seed": 3, "guidance": 4.0, "steps": 4}
    found = muse.draw_codes([text] * 2, negative=other, **options)
    known = torch.full((2, found.shape[1]), UNKNOWN)
    asked, away = (muse.condition([words] * 2) for words in (text, other))
    wanted = draw_options(False, muse.config.sampling, options)
    *_, expected = sample(muse, known, asked, away, wanted)
    assert torch.equal(found, expected)
    assert not torch.equal(found, muse.draw_codes([text] * 2, **options))
    with pytest.raises(DataError, match="holds a word that this model has no token for"):
        muse.draw_codes([text], negative="a handwritten elephant", **options)


@torch.inference_mode()
def test_a_negative_prompt_is_led_away_from(muse):
    """Away from red and from nothing else, digits are drawn less red than before."""

    def redness(**options):
        codes = muse.draw_codes([None] * 16, seed=0, **options)
        pixels = muse.visual.decode(codes, grid=muse.config.shape)
        bright = pixels.amax(1) > 0.5
        return float((pixels[:, 0] - pixels[:, 2])[bright].mean())

    plain = redness(guidance=1.0)
    assert redness(guidance=3.0, negative="a handwritten red three") < plain - 0.1


def test_another_codebook_is_one_sentence():
    said = r"codes: the tokenizer has 128 codes, not 1024; leave it out\."
    with pytest.raises(ConfigError, match=said):
        zoo.create("muse-digits", codes=1024, device="meta")
    assert zoo.create("muse-digits", codes=128, device="meta").config.codebook == 128


def test_another_tokenizer_changes_what_is_told_apart():
    """The vocabulary is the tokenizer's, whatever is put in its place."""
    model = zoo.create("muse-digits", visual="lfq-digits", device="meta")
    codes = zoo.config("lfq-digits").codebook_size
    assert (model.config.codebook, model.mask_code) == (codes, codes)
    assert model.head.weight.shape[0] == codes and model.embedding.weight.shape[0] == codes + 1


@torch.inference_mode()
def test_a_draft_guesses_and_changes_no_code():
    """Any model with the same codes can guess; in bf16, ties would make them part."""
    model, smaller = (zoo.load(f"{name}-digits", dtype="fp32") for name in ("parti", "dalle"))
    prompts = ["a handwritten red three", "a handwritten blue seven"]
    for guidance in (1.0, 2.0):
        given = {"temperature": 0.0, "guidance": guidance}
        plain = model.draw_codes(prompts, **given)
        found = model.draw_codes(prompts, draft=smaller, **given)
        assert torch.equal(found, plain)
        assert model.report.guessed > 0 and model.report.passes < 2 * plain.shape[1]
    own = model.draw_codes(prompts, draft=model, **given)
    assert torch.equal(own, plain) and model.report.acceptance == 1
    seen = []
    model.draw_codes(prompts, draft=smaller, watch=lambda codes: seen.append(codes.shape))
    assert seen == [plain.shape] * 2
    drawn = [model.draw_codes(prompts, draft=smaller, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert len(model.draw(prompts[0], 2, draft=smaller, seed=0)) == 2


def test_what_cannot_guess_is_refused(muse):
    model = zoo.load("parti-digits")
    prompt = "a handwritten red three"
    with pytest.raises(ConfigError, match="only code after code is guessed"):
        muse.draw(prompt, draft=model)
    for other in (muse, zoo.create("bert-stdlib", device="meta")):
        with pytest.raises(ConfigError, match="only a model that writes code after code can guess"):
            model.draw(prompt, draft=other)
    other = zoo.create("parti-digits", image=[16, 16], device="meta")
    with pytest.raises(ConfigError, match="take one with the same visual tokenizer"):
        model.draw(prompt, draft=other)
    with pytest.raises(ConfigError, match="give no codes that are known"):
        model.draw_codes([prompt], torch.full((1, 49), UNKNOWN), draft=model)
