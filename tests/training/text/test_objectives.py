"""Text objectives: what is hidden, what is predicted, and that a few steps learn."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from zoo.data.draw import seeds_of
from zoo.errors import ConfigError
from zoo.models.base import build_empty, initialise
from zoo.registry import build, resolve
from zoo.tokenizers.text import train_tokenizer
from zoo.training.text.next_token import bits_per_byte
from zoo.training.text.spans import corrupt, spans

BACKBONE = {"depth": 2, "width": 32, "length": 64, "attention": {"heads": 4}}


@pytest.fixture(scope="module")
def tokenizer():
    special = {"eos": "</s>", "pad": "<pad>", "mask": "<mask>"}
    texts = ["the cat sat on the mat and the dog ran", "def f(x): return x + 1"] * 20
    return train_tokenizer("byte-bpe", texts, vocabulary=300, special=special)


def make(kind, tokenizer, **more):
    config = resolve("model", {"kind": kind, "vocabulary": tokenizer.vocabulary + 20, **more})
    model = initialise(build_empty(config), 0)
    model.tokenizer = tokenizer
    return model


def decoder(tokenizer):
    return make("causal-lm", tokenizer, backbone={"causal": True, "position": "rope", **BACKBONE})


def encoder(tokenizer):
    return make(
        "masked-lm", tokenizer, backbone=BACKBONE, pooler=True, next_sentence=True, token_types=2
    )


def both(tokenizer):
    stack = {**BACKBONE, "position": "t5"}
    special = {"start": tokenizer.pad_id}
    return make("seq2seq", tokenizer, encoder=stack, decoder=stack, special=special)


def streams(tokenizer):
    return make("permutation-lm", tokenizer, backbone=BACKBONE)


CASES = {
    "next-token": (decoder, {}),
    "prefix": (decoder, {"name": "next-token", "prefix": True}),
    "masked-tokens": (encoder, {}),
    "whole-words": (encoder, {"name": "masked-tokens", "whole_words": True}),
    "next-sentence": (encoder, {"name": "masked-tokens", "next_sentence": True}),
    "span-corruption": (both, {"sentinels": 20}),
    "ul2": (both, {"sentinels": 20}),
    "permutation": (streams, {}),
}


def batch(size=8, n=32, high=290):
    # a text in which every token follows from the one before
    tokens = (torch.arange(n) * 7 + torch.arange(size)[:, None]) % 40 + 250
    return {"tokens": tokens.clamp(max=high), "seeds": seeds_of(0, torch.arange(size))}


@pytest.mark.parametrize("case", CASES)
def test_a_few_steps_learn_and_measuring_repeats(case, tokenizer):
    make_model, given = CASES[case]
    model = make_model(tokenizer)
    objective = build(resolve("objective", {"name": case, **given}))
    objective.check(model, None)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = objective(model, batch())
        loss.value.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.value.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert objective.weight(batch()) > 0
    held = {**batch(), "valid": torch.ones(8, dtype=torch.bool)}
    with torch.no_grad():
        first, second = objective.measure(model, held), objective.measure(model, held)
    assert first.keys() == second.keys() == {"loss", "accuracy"}
    assert all(torch.equal(a, b) for k in first for a, b in zip(first[k], second[k], strict=True))


def test_every_objective_refuses_another_kind_of_model(tokenizer):
    for case, (_, given) in CASES.items():
        for other in (decoder, encoder, both, streams):
            if other is not CASES[case][0]:
                objective = build(resolve("objective", {"name": case, **given}))
                with pytest.raises(ConfigError, match="objective"):
                    objective.check(other(tokenizer), None)


def test_masking_is_80_10_10_of_15(tokenizer):
    objective = build(resolve("objective", "masked-tokens"))
    objective.check(encoder(tokenizer), None)
    tokens = torch.full((200, 100), 255)
    arguments, _, chosen = objective.prepare({"tokens": tokens}, seeds_of(0, torch.arange(200)))
    seen = arguments["tokens"][chosen]
    share = chosen.float().mean()
    hidden = (seen == tokenizer.mask_id).float().mean()
    kept = (seen == 255).float().mean()
    assert abs(share - 0.15) < 0.01 and abs(hidden - 0.8) < 0.02 and abs(kept - 0.1) < 0.02
    assert torch.equal(arguments["tokens"][~chosen], tokens[~chosen])


def test_whole_words_are_hidden_together(tokenizer):
    objective = build(
        resolve("objective", {"name": "masked-tokens", "whole_words": True, "rate": 0.4})
    )
    objective.check(encoder(tokenizer), None)
    ids = tokenizer.encode("the cat sat on xyzzyplugh and the dog", special=False)
    tokens = torch.tensor([ids] * 50)
    _, _, chosen = objective.prepare({"tokens": tokens}, seeds_of(1, torch.arange(50)))
    word = objective.starts[tokens].long().cumsum(-1)
    for row in range(50):
        for number in word[row].unique():
            assert chosen[row, 1:][word[row, 1:] == number].unique().numel() <= 1


def test_spans_cover_the_rate_and_put_back_give_the_text():
    for seed in range(30):
        found = spans(100, 0.15, 3.0, torch.tensor(seed))
        assert sum(stop - start for start, stop in found) == 15 and len(found) == 5
        assert all(a[1] < b[0] for a, b in itertools.pairwise(found))
        source, target = corrupt(list(range(100)), found, [200, 201, 202, 203, 204], 999)
        pieces, place = {}, None
        for token in target[:-1]:
            if token >= 200:
                place = pieces.setdefault(token, [])
            else:
                place.append(token)
        whole = [t for s in source[:-1] for t in (pieces[s] if s >= 200 else [s])]
        assert whole == list(range(100))


def test_a_prefix_model_predicts_only_what_follows(tokenizer):
    objective = build(resolve("objective", {"name": "next-token", "prefix": True}))
    arguments, _targets, places = objective.prepare(batch(), batch()["seeds"])
    for prefix, row in zip(arguments["prefix"].tolist(), places, strict=True):
        assert row[: prefix - 1].sum() == 0 and bool(row[prefix - 1 :].all())


def test_permuted_order_lets_a_place_see_only_what_came_before(tokenizer):
    objective = build(resolve("objective", "permutation"))
    arguments, _targets, _ = objective.prepare(batch(), batch()["seeds"])
    hidden, picked = arguments["order"], arguments["targets"].argmax(-1)
    for row in range(8):
        predicted = set(picked[row].tolist())
        for i in range(32):
            for j in range(32):
                if j not in predicted:
                    assert not hidden[row, i, j]
            if i not in predicted:
                assert all(hidden[row, i, j] for j in predicted)
        order = hidden[row][picked[row]][:, picked[row]].sum(-1).sort().values
        assert order.tolist() == list(
            range(1, len(predicted) + 1)
        )  # a strict order, blind to itself


def test_bits_per_byte_counts_every_token_once(tokenizer):
    model = decoder(tokenizer).eval()
    texts = ["the cat sat on the mat " * 9, "def f(x): return x + 1 " * 7]
    found = bits_per_byte(model, texts, length=60, context=59)
    row = [tokenizer.eos_id]
    for ids in tokenizer.encode(texts, special=False):
        row += [*ids, tokenizer.eos_id]
    assert found["tokens"] == len(row) - 1
    assert found["bytes"] == sum(map(len, texts))
    whole = bits_per_byte(model, texts, length=60, context=30)
    assert whole["tokens"] == len(row) - 1
    short = bits_per_byte(model, texts[:1], length=400, context=10)
    tokens = torch.tensor([row[: row.index(tokenizer.eos_id, 1) + 1]])
    with torch.no_grad():
        nats = F.cross_entropy(model(tokens[:, :-1]).logits[0], tokens[0, 1:], reduction="sum")
    assert short["bits_per_byte"] == pytest.approx(
        float(nats) / 0.693147181 / len(texts[0]), rel=1e-4
    )
