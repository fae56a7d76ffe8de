"""Training: every scheme, the same result twice, the size asked for, and the special tokens."""

import json

import pytest

from zoo.errors import ConfigError, DataError, UnknownName
from zoo.tokenizers.text import read_tokenizer, train_tokenizer

KINDS = ["byte-bpe", "wordpiece", "unigram", "sentencepiece-bpe", "word-bpe", "character"]


@pytest.fixture(scope="module")
def small(corpus):
    """Enough for a unigram vocabulary, whose training is slow."""
    return corpus[:1200]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(kind, small, tmp_path):
    ours = train_tokenizer(kind, iter(small), 700)
    assert (80 if kind == "character" else 300) < ours.vocabulary <= 700
    assert ours.config.zoo_kind == kind
    text = "import argparse"
    ids = ours.encode(text)
    assert ours.decode(ids, skip_special=True) == text
    assert len(ours.encode(text, special=False)) <= len(text)
    ours.save(tmp_path)
    again = read_tokenizer(tmp_path)
    assert again.config == ours.config
    assert again.encode(small[:200]) == ours.encode(small[:200])
    assert again.special == ours.special and again.vocabulary == ours.vocabulary


@pytest.mark.parametrize("kind", [*(kind for kind in KINDS if kind != "unigram"), "clip"])
def test_the_same_texts_give_the_same_tokenizer(kind, corpus):
    first = train_tokenizer(kind, corpus, 600)
    second = train_tokenizer(kind, corpus, 600)
    assert first.engine.to_spec() == second.engine.to_spec()


def test_a_larger_vocabulary_needs_fewer_tokens(corpus):
    sizes = [
        sum(map(len, train_tokenizer("byte-bpe", corpus, size).encode(corpus)))
        for size in (300, 600, 1200)
    ]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 1.5 * sizes[2]


def test_special_tokens_come_first_and_are_whole(corpus):
    special = {"eos": "<eos>", "pad": "<pad>", "extra": ["<a>", "<b>"]}
    ours = train_tokenizer("byte-bpe", corpus, 400, special=special)
    assert [ours.id_to_token(number) for number in range(4)] == ["<eos>", "<pad>", "<a>", "<b>"]
    assert ours.special_ids == {0, 1, 2, 3}
    assert ours.encode("x<a>y")[1] == 2
    assert ours.bos_id is None


def test_a_node_gives_scheme_special_tokens_and_layout(corpus):
    bert = train_tokenizer("bert-cased", corpus, 700)
    assert bert.encode("x")[0] == bert.cls_id
    assert bert.encode("Import") != bert.encode("import")
    assert bert.config.repo is None and bert.config.reads == []
    t5 = train_tokenizer("t5", corpus[:1200], 700)
    assert t5.encode("x")[-1] == t5.eos_id


def test_other_special_tokens_leave_a_layout_that_names_lost_ones(corpus):
    ours = train_tokenizer("wordpiece", corpus, 700, special={"unk": "<?>", "pad": "<p>"})
    assert ours.config.single is None
    assert ours.encode("import", special=True) == ours.encode("import", special=False)
    kept = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
    ours = train_tokenizer("wordpiece", corpus, 700, special=kept)
    assert ours.config.single == "[CLS] $A [SEP]"


def test_settings(corpus):
    whole = train_tokenizer("byte-bpe", corpus, 500, pattern="none", single="$A <|endoftext|>")
    assert whole.encode("import")[-1] == whole.eos_id
    lower = train_tokenizer("wordpiece", corpus, 700, lowercase=False)
    assert lower.encode("Import") != lower.encode("import")


def test_what_is_refused(corpus):
    with pytest.raises(ConfigError, match="the 256 bytes and 2 special tokens"):
        train_tokenizer("byte-bpe", corpus, 200)
    with pytest.raises(ConfigError, match="leaves no room"):
        train_tokenizer("sentencepiece-bpe", corpus, 256)
    with pytest.raises(ConfigError, match="leaves no room"):
        train_tokenizer("wordpiece", corpus, 5)
    with pytest.raises(ConfigError, match="at least 1"):
        train_tokenizer("character", corpus, 0)
    with pytest.raises(UnknownName, match=r"Unknown kind 'bpe' of tokenizer"):
        train_tokenizer("bpe", corpus)
    with pytest.raises(ConfigError, match="is no tokenizer of text"):
        train_tokenizer("patches", corpus)
    with pytest.raises(ConfigError, match="A byte tokenizer is not trained"):
        train_tokenizer("byte", corpus)
    with pytest.raises(ConfigError, match="needs a token for the unknown"):
        train_tokenizer("unigram", corpus, 500, special={"eos": "</s>"})
    with pytest.raises(ConfigError, match=r"vocabulary_size|no such key"):
        train_tokenizer("byte-bpe", corpus, vocabulary_size=5)
    with pytest.raises(DataError, match="no text to train"):
        train_tokenizer("character", [], 100)
    with pytest.raises(Exception, match="A text is a string, not int"):
        train_tokenizer("character", ["a", 5], 100)


def test_what_is_written_opens_in_transformers(small, tmp_path, strings):
    transformers = pytest.importorskip("transformers")
    for kind in KINDS:
        ours = train_tokenizer(kind, small, 900, length=128)
        folder = ours.save(tmp_path / kind)
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        ids = ours.encode(strings[:600])
        assert theirs(strings[:600])["input_ids"] == ids, kind
        assert theirs.model_max_length == 128
        assert theirs.pad_token == ours.special.get("pad")
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        assert "auto_map" not in settings
