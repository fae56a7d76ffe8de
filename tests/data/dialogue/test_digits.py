"""Questions about digits: exact answers, the same in every run, in pictures and in words."""

import json

import pytest
import torch

import zoo
from zoo.data.dialogue.digits import KINDS, NUMBERS, Dice, question, texts
from zoo.data.draw import seeds_of
from zoo.errors import ConfigError, DataError
from zoo.registry import build, resolve
from zoo.tokenizers.text import train_tokenizer


@pytest.fixture(scope="module")
def reader():
    return zoo.create("lm-digits", seed=0)


@pytest.fixture(scope="module")
def seer():
    return zoo.create("llava-digits", seed=0)


def data(**keys):
    return build(resolve("data", {"name": "digit-questions", **keys}))


def test_answers_are_right():
    """Checked by what the words say, not by the code that writes them."""
    asked = set()
    for seed in range(700):
        dice = Dice(seed)
        kind = KINDS[seed % 7]
        count = {"which": 1 + seed % 3, "count": 1 + seed % 3, "there": 2, "even": 1}.get(kind, 2)
        digits = [(seed // 7 + 3 * i) % 10 for i in range(count)]
        text, answer = question(digits, kind, dice)
        words = text.rstrip("?").replace(",", "").split()
        asked.add(text)
        if kind == "which":
            place = {"first": 0, "second": 1, "third": 2}.get(words[-1], 0)
            assert NUMBERS.index(answer) == digits[place]
        elif kind == "even":
            assert (answer == "yes") == ((digits[0] % 2 == 0) == (words[-1] == "even"))
        elif kind == "sum":
            assert NUMBERS.index(answer) == sum(digits)
        elif kind == "there":
            assert (answer == "yes") == (NUMBERS.index(words[-1]) in digits)
        elif kind == "count":
            assert NUMBERS.index(answer) == len(digits)
        elif kind == "larger":
            sign = (digits[0] > digits[1]) - (digits[0] < digits[1])
            assert answer == {1: "left", -1: "right", 0: "neither"}[sign]
        else:
            named = NUMBERS.index(words[3])
            assert digits[["left", "right"].index(answer)] == named
    assert len(asked) >= 28


def test_the_vocabulary_is_what_training_it_gives():
    special = {"eos": "<|end|>", "pad": "<|pad|>"}
    made = train_tokenizer("byte-bpe", texts(), 400, special=special, pattern="gpt2")
    shipped = zoo.tokenizer("digits-bpe")
    every = texts()
    assert made.encode(every) == shipped.encode(every)
    assert all(shipped.decode(ids) == text for ids, text in zip(made.encode(every), every))


@pytest.mark.parametrize("pictures", [True, False])
def test_batches(reader, seer, pictures):
    model = seer if pictures else reader
    source = data(pictures=pictures)
    train = source.split("train", model)
    seeds = seeds_of(0, torch.arange(40))
    batch = train.batch(list(range(40)), seeds)
    again = train.batch(list(range(20, 40)), seeds[20:])
    tokenizer, kinds = model.tokenizer, batch["kind"].bincount(minlength=7)
    assert (kinds > 0).all() and batch["kinds"] == KINDS
    for row in range(40):
        ids, answers = batch["tokens"][row], batch["answers"][row]
        said = tokenizer.decode(ids[answers].tolist(), skip_special=True)
        assert said in texts() and ids[answers][-1] == tokenizer.eos_id
        assert not answers[~batch["mask"][row]].any()
    width = again["tokens"].shape[1]
    assert torch.equal(again["tokens"], batch["tokens"][20:, :width])  # whatever the batch
    if pictures:
        marks = (batch["tokens"] == model.config.image_token).sum()
        assert batch["pixels"].shape == (marks, 1, 32, 32) and len(batch["sizes"]) == marks
        assert torch.equal(again["pixels"], batch["pixels"][-len(again["pixels"]) :])


def test_held_out_questions_are_about_held_out_scans(seer):
    source = data()
    test, train = source.split("test", seer), source.split("train", seer)
    assert (len(test), len(test.labels), len(train.labels)) == (1400, 360, 1437)
    first, again = test.batch(range(14)), test.batch(range(14))
    assert all(torch.equal(first[key], again[key]) for key in ("tokens", "pixels", "kind"))
    assert first["kind"].tolist() == [0, 1, 2, 3, 4, 5, 6] * 2


def test_words_in_place_of_pictures_say_the_digit(reader):
    test = data(pictures=False, noise=0.0).split("test", reader)
    digits = torch.arange(10).repeat(50)
    said = test.patches(digits, seeds_of(1, torch.arange(500)))
    own = said == test.words[digits][:, None]
    assert own.any(1).all() and 0.3 < own.float().mean() < 0.8
    assert (own | (said == test.words[10])).all()


def test_what_does_not_go_together(reader, seer):
    with pytest.raises(ConfigError, match=r"set data.pictures=false"):
        data().split("train", reader)
    with pytest.raises(ConfigError, match="for a model that only reads"):
        data(pictures=False).split("train", seer)
    bytes_only = zoo.create("lm-digits", "tokenizer={name: byte, chat: lines}", seed=0)
    with pytest.raises(DataError, match="one token for each digit"):
        data(pictures=False).split("train", bytes_only)


# -- LLaVA's own format ----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    for name in ("a.png", "b.png"):
        Image.new("RGB", (20, 30), "red").save(tmp_path / name)
    return tmp_path


def turn(who, text):
    return {"from": who, "value": text}


def write(folder, *entries):
    path = folder / "chat.json"
    path.write_text(json.dumps(list(entries)))
    return build(resolve("data", {"name": "llava", "file": str(path), "held_out": 0.0}))


def test_conversations_from_a_folder(folder, seer):
    words = ("text.tokenizer={name: byte, chat: llava-v1}", "text.backbone.position=rope")
    model = zoo.create("llava-digits", *words, seed=0)
    source = write(
        folder,
        {"id": 1, "image": "a.png", "conversations": [
            turn("human", "what?\n<image>"), turn("gpt", "red"),
            turn("human", "sure?"), turn("gpt", "yes")]},
        {"id": 2, "conversations": [turn("human", "hi"), turn("gpt", "hello")]},
        {"id": 3, "image": ["a.png", "b.png"], "conversations": [
            turn("human", "<image> and <image>?"), turn("gpt", "same")]},
    )  # fmt: skip
    batch = source.split("train", model).batch([0, 1, 2])
    said = [
        model.tokenizer.decode(ids[places].tolist())
        for ids, places in zip(batch["tokens"], batch["answers"], strict=True)
    ]
    assert said == [" red</s> yes</s>", " hello</s>", " same</s>"]
    read = model.tokenizer.decode([i for i in batch["tokens"][0].tolist() if i >= 0])
    assert "USER: \nwhat? ASSISTANT: red</s>USER: sure? ASSISTANT: yes</s>" in read
    first = batch["tokens"][0].tolist()
    assert first[first.index(-200) + 1] == model.tokenizer.encode("\n", special=False)[0]
    assert len(batch["pixels"]) == 3 and batch["sizes"] == [(30, 20)] * 3
    logits = model(batch["tokens"].where(batch["mask"], 0), batch["pixels"], batch["mask"]).logits
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"image": "a.png", "conversations": [turn("human", "hi"), turn("gpt", "x")]},
         "entry 0: 0 <image> marks for 1 pictures"),
        ({"conversations": [turn("human", "<image>\nhi")]}, "entry 0: 1 <image> marks for 0"),
        ({"conversations": [turn("robot", "hi")]}, "turn 0: needs 'from'"),
        ({"conversations": []}, "no list of turns"),
        ({}, "no list of turns"),
    ],
)  # fmt: skip
def test_conversations_that_are_none(folder, entry, words):
    with pytest.raises(DataError, match=words):
        write(folder, entry)


def test_pictures_that_cannot_be_read_are_named(folder, seer, reader):
    talk = [turn("human", "<image>\nhi"), turn("gpt", "x")]
    source = write(folder, {"id": "k7", "image": "none.png", "conversations": talk})
    with pytest.raises(DataError, match=r"Conversation k7: .*none.png: no such file"):
        source.split("train", seer).batch([0])
    with pytest.raises(DataError, match="this model sees none"):
        source.split("train", reader)
    with pytest.raises(DataError, match=r"data.file: say which"):
        build(resolve("data", "llava"))
    (folder / "chat.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        build(resolve("data", {"name": "llava", "file": str(folder / "chat.json")}))
