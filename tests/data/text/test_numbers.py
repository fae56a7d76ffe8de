"""Numbers in words: the words, the split, the batches of a translation."""

import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

import zoo
from zoo.data.text import numbers as module
from zoo.data.text.numbers import in_words, number_pairs, numbers_of, repeated
from zoo.errors import ConfigError, DataError
from zoo.registry import build, read_node, resolve, to_mapping

pytest.importorskip("num2words")


def test_words():
    assert in_words(0, "en") == "zero"
    assert in_words(1999, "en") == "one thousand, nine hundred and ninety-nine"
    assert in_words(1999, "de") == "eintausendneunhundertneunundneunzig"
    assert in_words(71, "fr") == "soixante et onze"
    assert in_words(123, "es") == "ciento veintitrés"
    with pytest.raises(DataError, match=r"Unknown language 'dee'\. Did you mean 'de'"):
        in_words(1, "dee")


def test_the_split_is_exact_and_the_same_for_every_language():
    train, test = (numbers_of(split, 9999) for split in ("train", "test"))
    assert not set(train) & set(test)
    assert sorted(train + test) == numbers_of("all", 9999) == list(range(10_000))
    assert 0.09 < len(test) / 10_000 < 0.11
    assert numbers_of("test", 999) == [n for n in test if n < 1000]  # whatever the range
    assert len(numbers_of("train")) == 90_007 and len(numbers_of("test")) == 9_993
    unseen = {target for _, target in number_pairs("test", "en", "de", 999)}
    seen = {target for _, target in number_pairs("train", "de", "fr", 999)}
    assert not unseen & {source for source, _ in number_pairs("train", "de", "fr", 999)} and seen


def test_short_numbers_repeat_in_training_alone():
    train = numbers_of("train", 9999)
    assert repeated(train, 0.0) == train
    often = repeated(train, 0.1)
    assert set(often) == set(train) and often == sorted(often)
    counts = Counter(len(str(number)) for number in often)
    assert all(counts[digits] >= 0.1 * len(train) for digits in (1, 2, 3, 4))
    assert counts[4] == sum(number > 999 for number in train) and len(often) < 1.3 * len(train)
    data = build(resolve("data", {"name": "numbers", "highest": 9999, "short": 0.1}))
    model = SimpleNamespace(tokenizer=zoo.tokenizer("numbers-bpe"))
    assert data.split("train", model).numbers == often
    assert data.split("test", model).numbers == numbers_of("test", 9999)


def test_pairs_come_in_order():
    pairs = list(number_pairs("all", "en", "es", 9))
    assert pairs[:3] == [("zero", "cero"), ("one", "uno"), ("two", "dos")] and len(pairs) == 10


def test_batches():
    config = resolve("data", {"name": "numbers", "highest": 999, "target": "fr"})
    assert resolve("data", to_mapping(config)) == config
    tokenizer = build(read_node("tokenizer", "stdlib-bpe"))
    data = build(config).split("train", SimpleNamespace(tokenizer=tokenizer))
    assert len(data) == len(numbers_of("train", 999))
    batch = data.batch([1, 5, 700])
    assert set(batch) == {"source", "source_mask", "target", "target_mask"}
    for name in ("source", "target"):
        assert batch[name].dtype == torch.long and batch[f"{name}_mask"].dtype == torch.bool
        assert batch[name].shape == batch[f"{name}_mask"].shape
    for row, (source, target) in enumerate(data.pairs([1, 5, 700])):
        read = batch["source"][row][batch["source_mask"][row]]
        written = batch["target"][row][batch["target_mask"][row]]
        assert tokenizer.decode(read) == source
        assert written[-1] == tokenizer.eos_id
        assert tokenizer.decode(written[:-1]) == target
    assert (batch["target"][~batch["target_mask"]] == tokenizer.pad_id).all()


def test_what_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="another language than the source"):
        resolve("data", {"name": "numbers", "target": "en"})
    with pytest.raises(ConfigError, match="must be one of de, en, es, fr"):
        resolve("data", {"name": "numbers", "target": "it"})
    bare = build(read_node("tokenizer", "byte", {"special.eos": None}))
    with pytest.raises(DataError, match="needs an end token"):
        build(resolve("data", "numbers")).split("test", SimpleNamespace(tokenizer=bare))
    monkeypatch.setitem(sys.modules, "num2words", None)
    module._converters.cache_clear()
    in_words.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install multimodal-zoo\[numbers\]"):
        in_words(5, "en")
    module._converters.cache_clear()
