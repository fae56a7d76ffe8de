"""Real vocabularies, where openai-whisper is installed: GPT-2's and Whisper's, against tiktoken."""

import base64
import importlib.util
from pathlib import Path

import pytest

from zoo.tokenizers.text import read_tokenizer

tiktoken = pytest.importorskip("tiktoken")
_WHISPER = importlib.util.find_spec("whisper")
if _WHISPER is None:
    pytest.skip("openai-whisper is not installed", allow_module_level=True)
ASSETS = Path(_WHISPER.submodule_search_locations[0]) / "assets"
PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|notimestamps|>", "<|0.00|>"]


def reference(name):
    ranks = {
        base64.b64decode(token): int(rank)
        for token, rank in (line.split() for line in (ASSETS / name).read_bytes().splitlines())
    }
    special = {token: len(ranks) + number for number, token in enumerate(SPECIAL)}
    return tiktoken.Encoding(name, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)


@pytest.fixture(scope="module", params=["gpt2.tiktoken", "multilingual.tiktoken"])
def both(request):
    special = {"special": {"eos": SPECIAL[0], "extra": SPECIAL[1:]}}
    return read_tokenizer(ASSETS / request.param, special), reference(request.param)


def test_ids_and_round_trip(both, strings):
    ours, theirs = both
    texts = [*strings, "<|startoftranscript|><|en|><|notimestamps|> Hello<|endoftext|>"]
    ids = [theirs.encode(text, allowed_special="all") for text in texts]
    assert ours.encode(texts) == ids
    assert ours.decode(ids) == texts
    assert ours.encode(texts, control=False) == [theirs.encode_ordinary(text) for text in texts]
    assert ours.vocabulary == theirs.n_vocab


def test_known_ids(both):
    ours, _ = both
    if ours.vocabulary == 50256 + len(SPECIAL):  # GPT-2's vocabulary, without its last token
        assert ours.encode("Hello world") == [15496, 995]
        assert ours.encode(" Hello world") == [18435, 995]
    assert ours.eos_id == ours.vocabulary - len(SPECIAL)


def test_broken_bytes_are_shown_as_everywhere(both):
    ours, theirs = both
    ids = [number for text in ("漢字", "👩‍👩‍👧", "é") for number in theirs.encode(text)]
    for start in range(len(ids)):
        for end in range(start + 1, len(ids) + 1):
            assert ours.decode(ids[start:end]) == theirs.decode(ids[start:end])


def test_streams_whole_characters(both, strings):
    ours, _ = both
    for text in strings[:400]:
        ids = ours.encode(text, control=False)
        pieces = list(ours.stream_text(ids))
        assert "".join(pieces) == text
        if "\ufffd" not in text:
            assert not any("\ufffd" in piece for piece in pieces)


def test_written_back_for_transformers(both, strings, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours, _ = both
    ours.save(tmp_path)
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert auto(strings)["input_ids"] == ours.encode(strings)
    assert read_tokenizer(tmp_path).encode(strings) == ours.encode(strings)
