"""The two kinds of translation models with a vocabulary of their own: Marian and fairseq's WMT."""

import json

import pytest

from zoo.errors import ConfigError, DataError
from zoo.tokenizers.text import read_tokenizer, train_tokenizer

transformers = pytest.importorskip("transformers")
spm = pytest.importorskip("sentencepiece")
transformers.logging.set_verbosity_error()


@pytest.fixture(scope="module")
def marian(corpus, tmp_path_factory):
    """A folder as OPUS-MT's: two models, and a vocabulary that lacks some pieces of both."""
    folder = tmp_path_factory.mktemp("marian")
    lines = [line.replace("\n", " ") for line in corpus]
    half = len(lines) // 2
    pieces = []
    for name, part in (("source", lines[:half]), ("target", lines[half:])):
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(part),
            model_prefix=str(folder / name),
            minloglevel=2,
            model_type="unigram",
            vocab_size=1100,
            character_coverage=0.98,
        )
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
        model = spm.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
        pieces += [model.id_to_piece(number) for number in range(3, model.get_piece_size())]
    kept = [piece for index, piece in enumerate(dict.fromkeys(pieces)) if index % 40]
    # a letter that neither model knows, but the vocabulary does
    names = ["</s>", "<unk>", *kept, "☃", ">>fra<<", "<pad>"]
    vocab = {piece: number for number, piece in enumerate(names)}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "MarianTokenizer"}')
    return folder


def test_marian_equals_sentencepiece(marian, strings, tmp_path):
    texts = strings + [f">>fra<< {text}" for text in strings[:100]] + ["☃0 >>fra<<", ">>x<< hi"]
    ours = read_tokenizer(marian)
    reference = transformers.MarianTokenizer.from_pretrained(marian)
    assert ours.config.zoo_kind == "marian"
    ids = [reference.encode(text) for text in texts]
    assert ours.encode(texts) == ids
    assert ours.encode(texts, special=False) == [
        reference.encode(text, add_special_tokens=False) for text in texts
    ]
    targets = [reference(text_target=text)["input_ids"] for text in texts]
    assert ours.target.encode(texts) == targets
    assert targets != ids  # the two models do differ
    for skip in (False, True):
        wanted = [reference.decode(row, skip_special_tokens=skip) for row in ids]
        assert ours.target.decode(ids, skip_special=skip) == wanted
    assert ours.encode(texts[:50], texts[50:100]) == [
        reference.encode(a, b) for a, b in zip(texts[:50], texts[50:100])
    ]
    assert ours.token_to_id("☃") in ours.encode("☃")
    assert ours.vocabulary == len(reference)

    ours.save(tmp_path)
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [auto.encode(text) for text in texts[:300]] == ids[:300]
    assert read_tokenizer(tmp_path).encode(texts) == ids


def test_marian_with_two_vocabularies(marian, tmp_path):
    for file in marian.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    vocab = json.loads((marian / "vocab.json").read_text())
    special = ["</s>", "<unk>", "<pad>"]  # the same ids on both sides, as in public models
    turned = [piece for piece in reversed(vocab) if piece not in special]
    numbers = [number for piece, number in vocab.items() if piece not in special]
    other = {piece: vocab[piece] for piece in special} | dict(zip(turned, numbers, strict=True))
    (tmp_path / "target_vocab.json").write_text(json.dumps(other))
    config = {"tokenizer_class": "MarianTokenizer", "separate_vocabs": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    reference = transformers.MarianTokenizer.from_pretrained(tmp_path)
    ours = read_tokenizer(tmp_path)
    text = "import argparse and return None"
    assert ours.encode(text) == reference.encode(text)
    assert ours.target.encode(text) == reference(text_target=text)["input_ids"]
    ids = ours.target.encode(text)
    assert ours.target.decode(ids) == reference.decode(ids)


def test_marian_says_what_is_missing(marian, tmp_path):
    (tmp_path / "vocab.json").write_text((marian / "vocab.json").read_text())
    with pytest.raises(DataError, match=r"holds no source\.spm"):
        read_tokenizer(tmp_path, kind="marian")


@pytest.fixture(scope="module")
def fsmt(corpus, tmp_path_factory):
    """A folder as FSMT's; the source vocabulary lacks pieces that merges lead through."""
    folder = tmp_path_factory.mktemp("fsmt")
    special = {"bos": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>"}
    trained = train_tokenizer("word-bpe", corpus, 1200, special=special, lowercase=False)
    model = trained.engine.to_spec()["model"]
    kept = [token for token in model["vocab"] if token[0] == "<" or len(token) % 7]
    assert len(kept) < len(model["vocab"])
    vocab = {token: number for number, token in enumerate(kept)}
    (folder / "vocab-src.json").write_text(json.dumps(vocab))
    (folder / "vocab-tgt.json").write_text(json.dumps(model["vocab"]))
    merges = "".join(f"{a} {b} 12\n" for a, b in model["merges"])  # with counts, as fairseq's
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    config = {"tokenizer_class": "FSMTTokenizer", "langs": ["en", "de"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_fsmt_equals_transformers(fsmt, strings, tmp_path):
    pytest.importorskip("sacremoses")
    texts = [*strings, "Full．stop。 １２３ ”quoted“ ～ …", "Tab\there, zero​width"]
    ours = read_tokenizer(fsmt)
    reference = transformers.FSMTTokenizer.from_pretrained(fsmt)
    ids = [reference.encode(text) for text in texts]
    assert ours.config.languages == ["en", "de"]
    assert ours.encode(texts) == ids
    assert any(ours.unk_id in row for row in ids)
    for skip in (False, True):
        wanted = [reference.decode(row, skip_special_tokens=skip) for row in ids]
        assert ours.target.decode(ids, skip_special=skip) == wanted
    assert ours.encode(texts[:50], texts[50:100]) == [
        reference.encode(a, b) for a, b in zip(texts[:50], texts[50:100])
    ]
    # transformers cannot cut a target; ours is the target language's Moses over its vocabulary
    sentence = "Das ist ein Satz, import argparse."
    assert ours.target.decode(ours.target.encode(sentence), skip_special=True) == sentence

    ours.save(tmp_path)
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [auto.encode(text) for text in texts[:300]] == ids[:300]
    assert read_tokenizer(tmp_path).encode(texts) == ids


def test_fsmt_streams_its_text_at_the_end(fsmt):
    pytest.importorskip("sacremoses")
    ours = read_tokenizer(fsmt).target
    ids = ours.encode("import argparse, and return.")
    stream = ours.stream(skip_special=True)
    assert stream.feed(ids) == ""  # Moses joins whole sentences
    assert stream.end() == ours.decode(ids, skip_special=True) != ""


def test_fsmt_needs_its_languages(fsmt):
    with pytest.raises(ConfigError, match=r"languages: needs two codes"):
        read_tokenizer(fsmt, "languages=[en]")
    with pytest.raises(ConfigError, match=r"languages: must be given"):
        read_tokenizer(fsmt, "languages=[]")


def test_without_sacremoses_one_sentence_says_so(fsmt, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(ConfigError, match="pip install sacremoses"):
        read_tokenizer(fsmt)
