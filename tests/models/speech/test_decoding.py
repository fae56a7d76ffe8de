"""Decoding against enumeration of all paths, and forced alignment against its definition."""

import itertools
import math

import pytest
import torch

import zoo
from zoo.errors import DataError
from zoo.models.speech.align import ctc_align, labels_needed, transducer_align, words_of
from zoo.models.speech.ctc_search import CTCBeam, CTCGreedy, ctc_beam, ctc_greedy
from zoo.models.speech.labels import Label
from zoo.models.speech.transducer_search import (
    TransducerBeam,
    TransducerGreedy,
    hear_together,
    transducer_beam,
    transducer_greedy,
)
from zoo.registry import build, resolve


def table(n=6, v=4, seed=0, sharp=1.5):
    noise = torch.randn(n, v, generator=torch.Generator().manual_seed(seed)).double()
    return (sharp * noise).log_softmax(-1)


def collapse(path, blank=0):
    return [k for k, _ in itertools.groupby(path) if k != blank]


def paths(log_probs):
    n, v = log_probs.shape
    for path in itertools.product(range(v), repeat=n):
        yield path, sum(float(log_probs[i, k]) for i, k in enumerate(path))


def test_greedy_is_the_best_path_without_repeats_and_blanks():
    for seed in range(3):
        found = ctc_greedy(table(5, seed=seed), 0)
        best = max(paths(table(5, seed=seed)), key=lambda item: item[1])[0]
        assert [label.index for label in found] == collapse(best)
        for label in found:
            assert all(best[i] == label.index for i in range(label.start, label.stop))


def test_prefix_search_finds_the_most_probable_text():
    for seed in range(3):
        log_probs = table(5, seed=seed)
        totals = {}
        for path, score in paths(log_probs):
            text = tuple(collapse(path))
            totals[text] = totals.get(text, 0.0) + math.exp(score)
        expected = max(totals, key=totals.get)
        found, score = ctc_beam(log_probs, 0, beam=200, threshold=100)
        assert tuple(label.index for label in found) == expected
        assert math.isclose(math.exp(score), totals[expected], rel_tol=1e-5)


def test_a_language_model_changes_the_search():
    log_probs = torch.full((4, 3), math.log(1 / 3))
    loves_two = lambda prefix, label: 5.0 if label == 2 else -5.0  # noqa: E731
    found, _ = ctc_beam(log_probs, 0, 50, loves_two)
    assert found and {label.index for label in found} == {2}


def test_alignment_is_the_best_path_that_spells_the_text():
    labels = [1, 1, 2]
    for seed in range(3):
        log_probs = table(7, 3, seed)
        spelling = [item for item in paths(log_probs) if collapse(item[0]) == labels]
        best = max(spelling, key=lambda item: item[1])[0]
        found = ctc_align(log_probs, labels, 0)
        assert [label.index for label in found] == labels
        for label in found:
            assert all(best[i] == label.index for i in range(label.start, label.stop))
        assert sum(label.stop - label.start for label in found) == sum(k != 0 for k in best)


def test_a_text_too_long_for_the_sound_is_refused():
    assert labels_needed([1, 1, 3, 3, 3]) == 8
    with pytest.raises(DataError, match="needs 8 tokens of sound and there are 7"):
        ctc_align(table(7), [1, 1, 3, 3, 3], 0)
    assert ctc_align(table(7), [], 0) == []


def test_a_transducer_s_alignment_is_its_best_path():
    n, labels, v = 4, [2, 1, 2], 3
    for seed in range(4):
        noise = torch.randn(n, len(labels) + 1, v, generator=torch.Generator().manual_seed(seed))
        log_probs = (2 * noise).log_softmax(-1)
        best, places = -math.inf, None
        for said in itertools.combinations_with_replacement(range(n), len(labels)):
            score, u = 0.0, 0
            for place in range(n):
                while u < len(labels) and said[u] == place:
                    score += float(log_probs[place, u, labels[u]])
                    u += 1
                if place < n - 1:
                    score += float(log_probs[place, u, 0])
            if score > best:
                best, places = score, said
        found = transducer_align(log_probs, labels, 0)
        assert [label.index for label in found] == labels
        assert [label.start for label in found] == list(places)


def test_a_batch_of_transducers_is_each_alone():
    overrides = ("backbone.depth=1", "backbone.width=32", "sound.subsampling.channels=8")
    for durations in ([], [0, 1, 2, 3]):
        model = zoo.create("conformer-transducer-digits", *overrides, durations=durations, seed=3)
        with torch.no_grad():
            for parameter in (*model.prediction.parameters(), *model.joint.parameters()):
                parameter.mul_(3)
            heard = 3 * torch.randn(3, 20, 80, generator=torch.Generator().manual_seed(0))
            lengths = torch.tensor([20, 0, 13])
            together = transducer_greedy(model, heard, lengths)
            for row, length in enumerate(lengths.tolist()):
                alone = transducer_greedy(
                    model, heard[row : row + 1, : max(length, 1)], lengths[row : row + 1]
                )[0]
                assert [(a.index, a.start, a.stop) for a in alone] == [
                    (a.index, a.start, a.stop) for a in together[row]
                ]
        assert together[0] and together[1] == []
        for place in range(20):  # no more labels at a place than allowed
            assert sum(label.start == place for label in together[0]) <= model.config.max_symbols


def token_by_token(model, heard):
    """Greedy decoding as it is defined: one token of sound or one label at a time."""
    config, place, symbols, found = model.config, 0, 0, []
    said, state = model.prediction(torch.tensor([[config.blank]]))
    while place < len(heard):
        scores = model.joint(heard[place], said[0, 0])
        label = int(scores[: config.vocabulary].argmax())
        step = int(label == config.blank)
        if config.durations:
            step = config.durations[int(scores[config.vocabulary :].argmax())]
        if label == config.blank:
            step, symbols = max(step, 1), 0
        else:
            symbols = symbols + 1 if step == 0 else 0
            if symbols == config.max_symbols:
                step, symbols = 1, 0
            found.append((label, place, min(place + max(step, 1), len(heard))))
            said, state = model.prediction(torch.tensor([[label]]), state)
        place += step
    return found


@pytest.mark.parametrize("durations", [[], [0, 1, 2, 3], [1, 12]])
def test_looking_ahead_changes_nothing(durations):
    spoken = 0
    for seed in range(6):
        model, _ = sharp_transducer(9, seed, durations=durations, max_symbols=3)
        noise = torch.randn(4, 40, 16, generator=torch.Generator().manual_seed(seed))
        lengths = [40, 7, 33, 8]
        with torch.no_grad():
            model.joint.head.bias[0] += 3.0  # more blanks than labels, as in speech
            found = transducer_greedy(model, noise, torch.tensor(lengths))
            for row, length in enumerate(lengths):
                expected = token_by_token(model, noise[row, :length])
                assert [(a.index, a.start, a.stop) for a in found[row]] == expected
                spoken += len(expected)
    assert 20 < spoken < 2000


def sharp_transducer(vocabulary, seed, **keys):
    """A model whose joint is sure of something, and what it hears: n tokens of sound."""
    model = zoo.create(
        "conformer-transducer-digits", "backbone.depth=1", "backbone.width=32", "ctc=false",
        "sound.subsampling.channels=8", "prediction.width=16", vocabulary=vocabulary, seed=seed,
        **keys,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in (*model.prediction.parameters(), *model.joint.parameters()):
            parameter.mul_(2.5)
    heard = 2 * torch.randn(12, 16, generator=torch.Generator().manual_seed(seed))
    return model, heard


def test_a_transducer_s_search_sums_all_ways_to_a_text():
    for seed in range(3):
        model, heard = sharp_transducer(3, seed, max_symbols=2)
        heard = heard[:3]
        with torch.no_grad():
            totals = {}
            for text in (t for k in range(7) for t in itertools.product((1, 2), repeat=k)):
                said, _ = model.prediction(torch.tensor([[0, *text]]))
                log = model.joint(heard[:, None], said).log_softmax(-1)  # n u+1 v
                total = 0.0
                for places in itertools.combinations_with_replacement(range(3), len(text)):
                    if any(places.count(place) > 2 for place in places):
                        continue
                    score = sum(
                        float(log[place, u, label])
                        for u, (place, label) in enumerate(zip(places, text))
                    )
                    for place in range(3):
                        score += float(log[place, sum(p <= place for p in places), 0])
                    total += math.exp(score)
                totals[text] = total
            labels, score = transducer_beam(model, heard, 400)
        found = tuple(label.index for label in labels)
        assert math.isclose(math.exp(score), totals[found], rel_tol=1e-4)
        assert found == max(totals, key=totals.get)
        assert sorted(label.start for label in labels) == [label.start for label in labels]


def test_a_transducer_s_search_is_torchaudio_s():
    from torchaudio.models import RNNTBeamSearch

    class Theirs:  # the methods that RNNTBeamSearch calls; its blank is the last label
        def __init__(self, model):
            self.model = model

        def predict(self, tokens, lengths, state):
            given = None if state is None else tuple(part.transpose(0, 1) for part in state[0])
            out, new = self.model.prediction(tokens, given)
            return out, lengths, [[part.transpose(0, 1) for part in new]]

        def join(self, heard, heard_lengths, said, lengths):
            return self.model.joint(heard[:, :, None], said[:, None]), heard_lengths, lengths

    texts = set()
    for seed in range(4):
        model, heard = sharp_transducer(7, seed, blank=6, max_symbols=5)
        for beam in (2, 6):
            search = RNNTBeamSearch.__new__(RNNTBeamSearch)
            torch.nn.Module.__init__(search)
            search.model, search.blank, search.temperature = Theirs(model), 6, 1.0
            search.hypo_sort_key, search.step_max_tokens = (lambda hypothesis: hypothesis[3]), 5
            with torch.no_grad():
                tokens, _, _, expected = search._search(heard[None], None, beam)[0]
                labels, score = transducer_beam(model, heard, beam)
            assert [label.index for label in labels] == tokens[1:]
            assert score == pytest.approx(expected, abs=1e-4)
            texts.add(tuple(tokens))
    assert len(texts) > 3  # they are not all the empty text


def test_a_language_model_changes_the_search_of_a_transducer():
    model, heard = sharp_transducer(4, 0)
    loves_two = lambda prefix, label: 3.0 if label == 2 and len(prefix) < 3 else -9.0  # noqa: E731
    with torch.no_grad():
        labels, _ = transducer_beam(model, heard, 5, loves_two)
    assert [label.index for label in labels] == [2, 2, 2]


@pytest.mark.parametrize("sizes", [[1] * 240, [7, 100, 3, 130]])
def test_sound_that_comes_in_pieces_says_the_same(sizes):
    """Also where prefixes are long enough for what they share to be put aside."""
    loves_two = lambda prefix, label: 0.5 if label == 2 and len(prefix) % 2 else 0.0  # noqa: E731
    log_probs = table(240, 5, seed=3, sharp=3.0)
    for search in (CTCGreedy(0), CTCBeam(0, 6), CTCBeam(0, 6, loves_two)):
        for part in log_probs.split(sizes):
            search.hear(part)
        if isinstance(search, CTCGreedy):
            expected = ctc_greedy(log_probs, 0)
        else:
            expected, _ = ctc_beam(log_probs, 0, 6, search.scorer)
            assert len(search.stem) > 20
        assert search.labels == expected and len(expected) > 50
    for durations in ([], [0, 1, 2, 12]):
        model, _ = sharp_transducer(7, 1, max_symbols=3, durations=durations)
        heard = torch.randn(240, 16, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            searches = [TransducerGreedy(model, heard.device)]
            if not durations:
                searches.append(TransducerBeam(model, heard.device, 3, loves_two))
            for search in searches:
                for part in heard.split(sizes):
                    if isinstance(search, TransducerBeam):
                        search.hear(part)
                    else:
                        hear_together([search], part[None], [len(part)])
            expected = [transducer_greedy(model, heard[None], torch.tensor([240]))[0]]
            if not durations:
                expected.append(transducer_beam(model, heard, 3, loves_two)[0])
        for search, labels in zip(searches, expected, strict=True):
            found = [(a.index, a.start, a.stop) for a in search.labels]
            assert found == [(a.index, a.start, a.stop) for a in labels] and len(found) > 20


def test_a_search_puts_labels_where_the_best_path_has_them():
    for seed in range(4):
        log_probs = table(40, 5, seed, sharp=4.0)
        found, _ = ctc_beam(log_probs, 0, 8)
        expected = ctc_align(log_probs, [label.index for label in found], 0)
        assert [(a.index, a.start, a.stop) for a in found] == [
            (a.index, a.start, a.stop) for a in expected
        ]
        for a, b in zip(found, expected):
            assert a.probability == pytest.approx(b.probability, abs=1e-5)


@pytest.fixture(scope="module")
def letters():
    return build(resolve("tokenizer", "letters"))


def test_words_are_cut_at_blanks_and_keep_their_times(letters):
    ids = letters.encode(["one  two"], special=False)[0]
    labels = [Label(index, 2 * i, 2 * i + 1, 0.5) for i, index in enumerate(ids)]
    words = words_of(labels, letters, 0.04, offset=10.0)
    assert [word.text for word in words] == ["one", "two"]
    assert (words[0].start, words[0].stop) == (10.0, 10.2)
    assert (words[1].start, words[1].stop) == (10.4, 10.6)
    assert words[0].probability == pytest.approx(0.5)
    assert words_of([], letters, 0.04) == []
