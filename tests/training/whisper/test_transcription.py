"""The transcription objective: what is put before, what shall be written, when it was said."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.data.draw import seeds_of, uniform
from zoo.errors import ConfigError
from zoo.models.whisper.labels import timed_tokens
from zoo.registry import build, resolve


@pytest.fixture(scope="module")
def model():
    return zoo.create("whisper-digits", seed=0)


def objective(model, **keys):
    made = build(resolve("objective", {"kind": "transcription", **keys}))
    made.check(model, None)
    return made


def batch(model, count=6):
    sounds = [torch.randn(8000 + 4000 * i) * 0.1 for i in range(count)]
    features, lengths = model.sound.preprocess(sounds)
    texts = [" ".join(["one", "two", "seven"][: 1 + i % 3]) for i in range(count)]
    rows = model.tokenizer.encode(texts, special=False)
    return {
        "features": features,
        "lengths": lengths,
        "targets": torch.nn.utils.rnn.pad_sequence(list(map(torch.tensor, rows)), True),
        "target_lengths": torch.tensor(list(map(len, rows))),
        "texts": texts,
        "seeds": seeds_of(3, torch.arange(count)),
        "valid": torch.ones(count, dtype=torch.bool),
    }


def test_labels_with_times(model):
    layout = model.config.layout
    first, step = layout.first_time, 4 / 100
    spoken = [(0.0, 1.0, [7, 8]), (1.5, 3.99, [9])]
    assert timed_tokens(layout, spoken, 4) == [
        first, 7, 8, first + round(1 / step), first + 38, 9, first + 100, layout.end
    ]  # fmt: skip
    # what goes on in the next window is written there, and only begun here
    straddling = [*spoken[:1], (2.0, 4.5, [9]), (5.0, 6.0, [1])]
    assert timed_tokens(layout, straddling, 4)[4:] == [first + 50, layout.end]
    assert timed_tokens(layout, [], 4) == [layout.end]


@pytest.mark.parametrize("shift", [True, False])
def test_times_are_where_the_sound_is(model, shift):
    made, given = objective(model, times=1.0, shift=shift), batch(model)
    arguments, targets, places = made.prepare(given, given["seeds"])
    layout = model.config.layout
    quiet = arguments["features"].amin((1, 2))
    for row, length in enumerate(given["lengths"].tolist()):
        written = targets[row][places[row]].tolist()
        start, stop = (t - layout.first_time for t in (written[0], written[-2]))
        sound = arguments["features"][row].amax(0) > quiet[row]
        heard = sound.nonzero().flatten()
        assert abs(2 * start - int(heard[0])) <= 1 and abs(2 * stop - int(heard[-1]) - 1) <= 2
        assert shift or start == 0
        text = given["targets"][row, : given["target_lengths"][row]].tolist()
        assert written[1:-2] == text and written[-1] == layout.end
        tokens = arguments["tokens"][row].tolist()
        assert tokens[:3] == layout.prompt("en", "transcribe", True)
        assert tokens[3 : 3 + len(written) - 1] == written[:-1]
        assert int((heard[-1] - heard[0]) + 1) in (length - 1, length)


def test_without_times_and_without_speech(model):
    given, layout = batch(model), model.config.layout
    arguments, targets, places = objective(model, times=0.0).prepare(given, given["seeds"])
    assert arguments["tokens"][0, :4].tolist() == layout.prompt("en", "transcribe", False)
    assert targets[0][places[0]].tolist()[-1] == layout.end
    silent = objective(model, silent=1.0).prepare(given, given["seeds"])
    assert silent[0]["tokens"].tolist() == [[layout.start]] * 6
    assert silent[1].tolist() == [[layout.no_speech]] * 6
    assert float(silent[0]["features"].std()) < float(arguments["features"].std())


def test_samples_do_not_depend_on_each_other(model):
    made, given = objective(model, times=0.5, silent=0.3), batch(model)
    whole = made.prepare(given, given["seeds"])
    part = {key: value[2:4] for key, value in given.items()}
    alone = made.prepare(part, part["seeds"])
    assert torch.equal(alone[0]["features"], whole[0]["features"][2:4])
    for row in (0, 1):
        assert torch.equal(alone[1][row][alone[2][row]], whole[1][row + 2][whole[2][row + 2]])
    assert 0 < float((uniform(given["seeds"], 3)[:, 0] < 0.5).float().mean()) < 1


def test_a_few_steps_learn_and_word_errors_are_counted(model):
    learner = zoo.create("whisper-digits", seed=1)
    made, given = objective(learner, smoothing=0.0), batch(learner)
    optimiser = torch.optim.AdamW(learner.parameters(), lr=2e-3)
    losses = []
    for _ in range(25):
        loss = made(learner.train(), given).value
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        sums = made.measure(learner.eval(), given)
    edits, words = sums["wer"]
    assert words == 12 and edits >= 0
    assert made.higher_is_better("accuracy") and not made.higher_is_better("wer")


def test_what_it_does_not_train(model):
    with pytest.raises(ConfigError, match="trains whisper models"):
        objective(zoo.create("vit-digits", device="meta"))
    with pytest.raises(ConfigError, match="language: 'de' is none of this model's"):
        objective(model, language="de")
