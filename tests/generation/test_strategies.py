"""What each option does, against its definition."""

import pytest
import torch

from tests.generation.conftest import plain
from zoo.errors import ConfigError
from zoo.generation.beam import beam_search
from zoo.generation.logits import filtered, guided, penalised, probabilities
from zoo.generation.loop import decode
from zoo.generation.masked import MaskedOptions, masked_steps, share_masked
from zoo.generation.schema import options
from zoo.models.text.steps import CausalSteps

SCORES = torch.tensor([[2.0, 1.0, 0.5, -1.0, -3.0]])


def kept(**given):
    return torch.isfinite(filtered(SCORES, options(temperature=1.0, **given)))[0].tolist()


def test_filters_keep_what_their_papers_say():
    p = SCORES.softmax(-1)[0]
    assert kept(top_k=2) == [True, True, False, False, False]
    assert kept(top_p=float(p[0]) - 0.01) == [True, False, False, False, False]
    assert kept(top_p=float(p[0]) + 0.01) == [True, True, False, False, False]
    assert kept(min_p=float(p[2] / p[0]) - 0.01) == [True, True, True, False, False]
    surprise = (-p.log() - (-(p * p.log()).sum())).abs()
    assert kept(typical=0.01).index(True) == int(surprise.argmin())
    assert sum(kept(top_p=1.0)) == 5


def test_temperature_divides_and_zero_is_the_best():
    hot = probabilities(SCORES, options(temperature=2.0))
    assert torch.allclose(hot, (SCORES / 2).softmax(-1))
    assert probabilities(SCORES, options())[0].tolist() == [1, 0, 0, 0, 0]


def test_penalty_and_guidance():
    found = penalised(SCORES, torch.tensor([[0, 4]]), 2.0)
    assert found.tolist() == [[1.0, 1.0, 0.5, -1.0, -6.0]]
    other = torch.zeros_like(SCORES)
    assert torch.equal(guided(SCORES, other, 1.0), SCORES)
    assert torch.equal(guided(SCORES, other, 3.0), 3 * SCORES)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temprature": 1.0}, "Did you mean 'temperature'"),
        ({"temperature": -1.0}, "must be at least 0.0"),
        ({"top_k": 5}, "needs a temperature above 0"),
        ({"beams": 4, "temperature": 1.0}, "beam search takes no temperature"),
        ({"results": 3}, "need as many beams"),
        ({"beams": 4, "groups": 3}, "do not divide into 3 groups"),
    ],
)
def test_impossible_options_are_refused_in_one_sentence(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        options(**given)
    assert "\n" not in str(caught.value)


@torch.inference_mode()
def test_the_same_seed_draws_the_same(gpt):
    prompt = torch.tensor([[1, 2, 3]])

    def draw(seed):
        wanted = options(max_new_tokens=20, temperature=5.0, seed=seed)
        return decode(CausalSteps(gpt), prompt, wanted).tokens

    assert draw(0) == draw(0) != draw(1)


@torch.inference_mode()
def test_ends_and_stops(gpt):
    prompt, free = [1, 2, 3], plain(gpt, [1, 2, 3], 20)
    end = free[5]
    first = free.index(end)
    found = decode(CausalSteps(gpt), torch.tensor([prompt]), options(max_new_tokens=20), [end])
    assert found.tokens == [free[: first + 1]] and found.finished == [True]
    held = options(max_new_tokens=20, min_new_tokens=first + 2)
    found = decode(CausalSteps(gpt), torch.tensor([prompt]), held, [end])
    assert end not in found.tokens[0][: first + 2]
    stopped = decode(
        CausalSteps(gpt),
        torch.tensor([prompt]),
        options(max_new_tokens=20),
        stopped=lambda row, tokens: len(tokens) == 7,
        check_every=4,
    )
    assert stopped.tokens == [free[:7]]  # looked at late, cut where it ended


@torch.inference_mode()
def test_callbacks_constrain(gpt):
    def even(tokens, scores):
        scores[:, 1::2] = float("-inf")
        return scores

    wanted = options(max_new_tokens=10)
    found = decode(CausalSteps(gpt), torch.tensor([[1, 2]]), wanted, callbacks=[even])
    assert all(token % 2 == 0 for token in found.tokens[0])


def exhaustive(model, prompt, length, vocabulary=37):
    """Returns the log-probability of every continuation of `length` tokens."""
    totals = {(): 0.0}
    for _ in range(length):
        paths = list(totals)
        rows = torch.tensor([[*prompt, *path] for path in paths])
        logs = model(rows).logits[:, -1].log_softmax(-1)
        totals = {
            (*path, token): totals[path] + float(logs[i, token])
            for i, path in enumerate(paths)
            for token in range(vocabulary)
        }
    return totals


@torch.inference_mode()
def test_a_wide_beam_finds_the_best_of_all(gpt):
    prompt = [1, 2, 3]
    ranked = sorted(exhaustive(gpt, prompt, 2).items(), key=lambda item: -item[1])
    wanted = options(max_new_tokens=2, beams=37, results=3)
    (found,) = beam_search(CausalSteps(gpt), torch.tensor([prompt]), wanted)
    assert [tuple(t) for t in found.tokens] == [path for path, _ in ranked[:3]]
    expected = torch.tensor([score for _, score in ranked[:3]])
    assert torch.allclose(torch.tensor(found.scores), expected, atol=1e-3)


@torch.inference_mode()
def test_one_beam_is_greedy_and_groups_differ(gpt):
    prompt = torch.tensor([[1, 2, 3]])
    (one,) = beam_search(CausalSteps(gpt), prompt, options(max_new_tokens=15))
    assert one.tokens == [plain(gpt, [1, 2, 3], 15)]
    diverse = options(max_new_tokens=8, beams=4, groups=4, results=4, diversity=1e4)
    (found,) = beam_search(CausalSteps(gpt), prompt, diverse)
    assert len({tokens[0] for tokens in found.tokens}) == 4


@torch.inference_mode()
@pytest.mark.parametrize("diversity", [0.0, 0.7, 3.0])
def test_groups_follow_the_definition(gpt, diversity):
    """Algorithm 1 of arXiv 1610.02424, written out: each group in turn extends its own beams by
    what scores best, less `diversity` for every time that earlier groups chose the token now."""
    prompt, groups, size, length = [1, 2, 3], 3, 2, 5
    beams = [[([], 0.0)] for _ in range(groups)]
    for _ in range(length):
        chosen = []
        for group, own in enumerate(beams):
            found = []
            for tokens, score in own:
                logs = gpt(torch.tensor([[*prompt, *tokens]])).logits[0, -1].log_softmax(-1)
                for token, log in enumerate(logs.tolist()):
                    worth = score + log - diversity * chosen.count(token)
                    found.append((worth, [*tokens, token], score + log))
            found.sort(key=lambda entry: -entry[0])
            beams[group] = [(tokens, score) for _, tokens, score in found[:size]]
            chosen += [tokens[-1] for tokens, _ in beams[group]]
    expected = sorted((beam for own in beams for beam in own), key=lambda beam: -beam[1])
    wanted = options(
        max_new_tokens=length, beams=groups * size, groups=groups, results=groups * size,
        diversity=diversity, length_penalty=0.0,
    )  # fmt: skip
    (found,) = beam_search(CausalSteps(gpt), torch.tensor([prompt]), wanted)
    assert found.scores == pytest.approx([score for _, score in expected], abs=1e-3)
    assert sorted(found.tokens) == sorted(tokens for tokens, _ in expected)


def test_masked_decoding_follows_its_schedule_and_keeps_known_tokens():
    torch.manual_seed(0)
    fixed, mask = torch.randn(2, 16, 10), 10
    tokens = torch.full((2, 16), mask)
    tokens[0, 3:6] = torch.tensor([7, 8, 9])
    wanted = MaskedOptions(steps=5, seed=0)
    seen = list(masked_steps(lambda t, time: fixed, tokens, mask, wanted))
    assert len(seen) == 5
    for index, now in enumerate(seen):
        share = share_masked("cosine", (index + 1) / 5)
        left = (now == mask).sum(-1).tolist()
        assert left == ([int(13 * share), int(16 * share)] if index < 4 else [0, 0])
        assert now[0, 3:6].tolist() == [7, 8, 9]
    again = list(masked_steps(lambda t, time: fixed, tokens, mask, wanted))
    assert torch.equal(seen[-1], again[-1])
