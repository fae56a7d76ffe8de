"""SentencePiece files: what the wire format says, and the library's own cuts to the last bit."""

import pytest

from zoo.errors import ConfigError, DataError
from zoo.tokenizers.text import read_tokenizer
from zoo.tokenizers.text.sentencepiece import BYTE, CONTROL, UNKNOWN, merges_of, read_model
from zoo.tokenizers.text.spm_exact import ExactUnigram

spm = pytest.importorskip("sentencepiece")


def train(corpus, folder, **options):
    options = {"model_type": "unigram", "vocab_size": 1200, "character_coverage": 0.98} | options
    lines = [line.replace("\n", " ") for line in corpus]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "m"), minloglevel=2, **options
    )
    return folder / "m.model"


@pytest.fixture(scope="module")
def unigram(corpus, tmp_path_factory):
    return train(corpus, tmp_path_factory.mktemp("unigram"), pad_id=3, control_symbols="<sep>")


@pytest.fixture(scope="module")
def fallback(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fallback")
    return train(corpus, folder, byte_fallback=True, remove_extra_whitespaces=False)


def test_every_field_that_is_read(unigram, fallback):
    model, theirs = read_model(unigram), spm.SentencePieceProcessor(model_file=str(unigram))
    assert [p.text for p in model.pieces] == [theirs.id_to_piece(i) for i in range(len(theirs))]
    assert [p.score for p in model.pieces] == [theirs.get_score(i) for i in range(len(theirs))]
    assert (model.algorithm, model.byte_fallback) == ("unigram", False)
    assert (model.unk_id, model.bos_id, model.eos_id, model.pad_id) == (0, 1, 2, 3)
    assert model.pieces[0].type == UNKNOWN
    assert [p.text for p in model.pieces if p.type == CONTROL] == ["<s>", "</s>", "<pad>", "<sep>"]
    assert model.token(3) == "<pad>" and model.token(-1) is None
    assert model.charsmap and model.dummy_prefix and model.remove_extra_spaces
    other = read_model(fallback)
    assert other.byte_fallback and not other.remove_extra_spaces and other.pad_id == -1
    assert sum(p.type == BYTE for p in other.pieces) == 256


@pytest.mark.parametrize("name", ["unigram", "fallback"])
def test_exact_cuts(name, request, strings):
    path = request.getfixturevalue(name)
    ours = ExactUnigram(read_model(path))
    theirs = spm.SentencePieceProcessor(model_file=str(path))
    assert [ours.normalize(text) for text in strings] == [theirs.normalize(t) for t in strings]
    assert [ours.ids(text) for text in strings] == [theirs.encode(text) for text in strings]


def test_a_file_of_no_known_family_is_cut_as_it_says(unigram, tmp_path, strings):
    (tmp_path / "tokenizer.model").write_bytes(unigram.read_bytes())
    ours = read_tokenizer(tmp_path)
    assert ours.config.zoo_kind == "unigram"
    theirs = spm.SentencePieceProcessor(model_file=str(unigram))
    # The tokenizers library matches control symbols in the text, normalises by grapheme and adds in
    # double precision: ordinary text agrees, long runs and odd marks need not (see spm_exact.py).
    assert ours.encode("Hello  world, 1,000 naïve cafés") == theirs.encode(
        "Hello  world, 1,000 naïve cafés"
    )
    same = sum(ours.encode(text) == theirs.encode(text) for text in strings)
    assert same / len(strings) > 0.85
    assert ours.decode(ours.encode("import  os")) == "import os"


def test_bpe_files_give_their_merges(corpus, tmp_path, strings):
    path = train(
        corpus,
        tmp_path,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )
    path.rename(tmp_path / "tokenizer.model")
    model = read_model(tmp_path / "tokenizer.model")
    merges = merges_of(model)
    pieces = {piece.text for piece in model.pieces}
    assert merges and all(a + b in pieces for a, b in merges)
    ours = read_tokenizer(tmp_path)
    theirs = spm.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    texts = [t for t in strings if not any(w in t for w in ("<s>", "</s>", "<unk>"))]
    assert ours.encode(texts) == [theirs.encode(text) for text in texts]
    with pytest.raises(ConfigError, match="holds a bpe model, not a unigram one"):
        read_tokenizer(tmp_path, kind="unigram")


def test_xlnet_keeps_numbers_and_commas_apart(tmp_path):
    lines = [f"{n},{n + 1}, {n},{n}" for n in range(3000)]
    train(lines, tmp_path, vocab_size=200).rename(tmp_path / "spiece.model")

    def joined(tokenizer):
        return [p for p in tokenizer.pieces("12,000, 7,") if p[-1] == "," and p[-2:-1].isdigit()]

    assert joined(read_tokenizer(tmp_path, kind="unigram"))
    assert not joined(read_tokenizer(tmp_path, "split_number_commas=true", kind="unigram"))


def test_other_algorithms_are_refused(corpus, tmp_path):
    train(corpus, tmp_path, model_type="char", vocab_size=200).rename(tmp_path / "tokenizer.model")
    with pytest.raises(DataError, match="holds a char model"):
        read_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match="holds a char model, not a bpe one"):
        read_tokenizer(tmp_path, kind="sentencepiece-bpe")


def test_broken_files(tmp_path, unigram):
    path = tmp_path / "spiece.model"
    data = unigram.read_bytes()
    for broken in (b"", b"not a model", b"\xff" * 50, data[:-7], data[: len(data) // 2], b"\n\x05"):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="is no SentencePiece model"):
            read_model(path)
