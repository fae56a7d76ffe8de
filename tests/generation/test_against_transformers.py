"""Filters, penalties and beams against transformers' own, on random scores and tiny models."""

import pytest
import torch

import zoo
from zoo.generation.beam import beam_search
from zoo.generation.logits import filtered, penalised
from zoo.generation.schema import options
from zoo.models.text.steps import CausalSteps

transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

CASES = {
    "temperature": ({}, lambda t: []),
    "top_k": ({"top_k": 7}, lambda t: [t.TopKLogitsWarper(7)]),
    "top_p": ({"top_p": 0.8}, lambda t: [t.TopPLogitsWarper(0.8)]),
    "min_p": ({"min_p": 0.1}, lambda t: [t.MinPLogitsWarper(0.1)]),
    "typical": ({"typical": 0.7}, lambda t: [t.TypicalLogitsWarper(0.7)]),
    "k then p": (
        {"top_k": 9, "top_p": 0.6},
        lambda t: [t.TopKLogitsWarper(9), t.TopPLogitsWarper(0.6)],
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
def test_filters_leave_the_same_distribution(name, temperature):
    given, theirs = CASES[name]
    scores = 3 * torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    expected = scores / temperature
    for warper in theirs(transformers):
        expected = warper(None, expected)
    found = filtered(scores, options(temperature=temperature, **given))
    assert torch.equal(found == -torch.inf, expected == -torch.inf)
    torch.testing.assert_close(found.softmax(-1), expected.softmax(-1))


def test_the_repetition_penalty_is_theirs():
    scores = torch.randn(4, 30, generator=torch.Generator().manual_seed(1))
    tokens = torch.randint(30, (4, 9), generator=torch.Generator().manual_seed(2))
    theirs = transformers.RepetitionPenaltyLogitsProcessor(1.7)(tokens, scores.clone())
    torch.testing.assert_close(penalised(scores, tokens, 1.7), theirs)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(ours, the same in transformers)"""
    size = {"depth": 2, "width": 32, "length": 64, "attention.heads": 4}
    model = zoo.create(
        "gpt2", seed=0, vocabulary=40, **{f"backbone.{k}": v for k, v in size.items()}
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    folder = tmp_path_factory.mktemp("gpt2")
    zoo.save(model.eval(), folder, format="transformers-gpt2")
    return model, transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"length_penalty": 0.5}, {"length_penalty": 0.5}),
        ({"length_penalty": 2.0, "results": 3}, {"length_penalty": 2.0, "num_return_sequences": 3}),
        ({"min_new_tokens": 6}, {"min_new_tokens": 6}),
    ],
)
@torch.inference_mode()
def test_beams_are_theirs(pair, ours, theirs):
    """But for the repetition penalty: the paper's divides scores, theirs log-probabilities here."""
    model, reference = pair
    prompt, end = torch.tensor([[5, 1, 30, 7]]), 3
    (found,) = beam_search(
        CausalSteps(model), prompt, options(beams=4, max_new_tokens=12, **ours), [end]
    )
    expected = reference.generate(
        prompt, attention_mask=torch.ones_like(prompt), num_beams=4, max_new_tokens=12,
        do_sample=False, early_stopping=False, eos_token_id=end, pad_token_id=0, **theirs,
    )  # fmt: skip
    for tokens, row in zip(found.tokens, expected[:, 4:].tolist(), strict=True):
        assert tokens == row[: len(tokens)] and not any(row[len(tokens) :])
