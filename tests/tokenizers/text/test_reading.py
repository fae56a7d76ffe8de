"""Public folders: which file decides, what settings mean, and what is refused."""

import json

import pytest

from zoo.errors import ConfigError, DataError
from zoo.registry import names, read_node
from zoo.tokenizers.text import read_tokenizer, train_tokenizer
from zoo.tokenizers.text.reading import read_config


def write(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def bytes_folder(corpus, tmp_path_factory):
    """vocab.json and merges.txt of a byte-level vocabulary."""
    folder = tmp_path_factory.mktemp("bytes")
    model = train_tokenizer("gpt2", corpus, 600).engine.to_spec()["model"]
    merges = "".join(f"{a} {b}\n" for a, b in model["merges"])
    return write(folder, vocab__json=model["vocab"], merges__txt="#version: 0.2\n" + merges)


@pytest.fixture
def folder(bytes_folder, tmp_path):
    for file in bytes_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_the_class_decides_then_the_model_type_then_the_files(folder):
    assert read_config(folder).zoo_kind == "byte-bpe"
    assert read_config(folder).single is None
    write(folder, config__json={"model_type": "roberta"})
    assert read_config(folder).single == "<s> $A </s>"
    write(folder, tokenizer_config__json={"tokenizer_class": "GPT2TokenizerFast"})
    config = read_config(folder)
    assert config.single is None and config.special.eos == "<|endoftext|>"
    assert config.repo is None and config.reads == []


def test_settings_of_a_bare_folder(folder):
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": True,
        "model_max_length": 77,
        "padding_side": "left",
        "truncation_side": "left",
        "pad_token": {"__type": "AddedToken", "content": "<pad>", "lstrip": False},
        "unk_token": None,
        "add_bos_token": True,
        "additional_special_tokens": ["<x>", {"content": "<y>"}],
    }
    write(folder, tokenizer_config__json=settings)
    config = read_config(folder)
    assert (config.prefix_space, config.length) == (True, 77)
    assert (config.padding, config.truncation) == ("left", "left")
    assert config.special.pad == "<pad>" and config.special.unk is None
    assert config.special.extra == ["<x>", "<y>"]
    assert config.single == "<|endoftext|> $A"
    ours = read_tokenizer(folder)
    assert ours.vocabulary == 603  # <pad>, <x> and <y> were not in it
    assert [ours.token_to_id(token) for token in ("<pad>", "<x>", "<y>")] == [600, 601, 602]
    assert ours.encode("a")[0] == ours.bos_id
    endless = {**settings, "model_max_length": 10**30}
    write(folder, tokenizer_config__json=endless)
    assert read_config(folder).length is None


def test_older_files_beside_it(folder):
    write(
        folder,
        special_tokens_map__json={"pad_token": "<pad>", "eos_token": {"content": "<eos>"}},
        added_tokens__json={"<pad>": 600, "<eos>": 601, "plain": 602},
        tokenizer_config__json={"tokenizer_class": "GPT2Tokenizer"},
    )
    ours = read_tokenizer(folder)
    assert (ours.pad_id, ours.eos_id) == (600, 601)
    assert ours.encode("a plain text")[1:3] != ours.encode("a plaid text")[1:3]
    assert ours.token_to_id("plain") == 602
    assert 602 not in ours.special_ids and {600, 601} <= ours.special_ids


def test_newer_files_say_all_tokens_at_once(folder):
    tokens = {
        "600": {"content": "<pad>", "special": True, "lstrip": True, "rstrip": True},
        "601": {"content": "<plain>", "special": False, "normalized": False},
    }
    write(
        folder,
        tokenizer_config__json={
            "tokenizer_class": "GPT2Tokenizer",
            "added_tokens_decoder": tokens,
            "pad_token": "<pad>",
        },
        special_tokens_map__json={"pad_token": "<other>"},  # is not read any more
    )
    ours = read_tokenizer(folder)
    assert ours.pad_id == 600
    assert ours.encode("a <pad> b") == [*ours.encode("a"), 600, *ours.encode("b")]
    assert 601 not in ours.special_ids


def test_tokenizer_json_is_the_whole_truth(folder):
    ours = read_tokenizer(folder, {"special": {"eos": "</s>"}, "single": "$A </s>"})
    ours.save(folder)
    write(
        folder,
        tokenizer_config__json={"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True},
    )
    again = read_tokenizer(folder)
    assert again.config.single is None and again.config.prefix_space is None
    assert again.encode("a b") == ours.encode("a b")
    # the family's usual tokens do not grow the vocabulary
    assert again.vocabulary == ours.vocabulary and again.mask_id is None and again.eos_id == 600


def test_a_llama_class_around_a_byte_level_file(folder):
    ours = read_tokenizer(folder)
    ours.save(folder)
    write(folder, tokenizer_config__json={"tokenizer_class": "LlamaTokenizer", "legacy": False})
    assert read_config(folder).zoo_kind == "byte-bpe"
    assert read_tokenizer(folder).encode(" a  b") == ours.encode(" a  b")


def test_an_older_tokenizer_json_without_a_model_type(folder):
    ours = read_tokenizer(folder)
    ours.save(folder)
    spec = json.loads((folder / "tokenizer.json").read_text())
    del spec["model"]["type"]
    write(folder, tokenizer__json=spec, tokenizer_config__json={})
    assert read_tokenizer(folder).encode("import os") == ours.encode("import os")


def test_limits_inside_a_tokenizer_json_are_not_applied(folder):
    """Some public files carry what their trainer truncated and padded to (MiniLM: 128)."""
    ours = read_tokenizer(folder)
    ours.save(folder)
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["truncation"] = {
        "direction": "Right",
        "max_length": 3,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    spec["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "a",
    }
    write(folder, tokenizer__json=spec)
    for text in ("a", "import os and return"):
        assert read_tokenizer(folder).encode(text) == ours.encode(text)


def test_chat_templates_of_a_folder(folder):
    several = [
        {"name": "tool_use", "template": "T"},
        {"name": "default", "template": "{{ messages[0].content }}"},
    ]
    write(folder, tokenizer_config__json={"chat_template": several})
    dialog = [{"role": "user", "content": "q"}]
    assert read_tokenizer(folder).chat(dialog) == "q"
    write(folder, chat_template__json={"chat_template": "J{{ eos_token }}"})
    settings = {"tokenizer_class": "GPT2Tokenizer"}
    write(folder, tokenizer_config__json=settings)
    assert read_tokenizer(folder).chat(dialog) == "J<|endoftext|>"


def test_overrides(folder):
    ours = read_tokenizer(folder, "padding=left", {"length": 5}, kind="byte-bpe")
    assert ours.config.padding == "left" and ours.config.length == 5
    with pytest.raises(ConfigError, match="Did you mean 'padding'"):
        read_tokenizer(folder, "paddin=left")


def test_what_is_refused(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(DataError, match="no such folder"):
        read_tokenizer(empty / "missing")
    with pytest.raises(DataError, match=r"holds no tokenizer\.json, vocab\.txt"):
        read_tokenizer(empty)
    with pytest.raises(DataError, match=r"holds no vocab\.txt to read a vocabulary from"):
        read_tokenizer(empty, kind="wordpiece")
    write(empty, tokenizer__json="{")
    with pytest.raises(DataError, match=r"tokenizer\.json is not JSON"):
        read_tokenizer(empty)
    write(empty, tokenizer__json="[]")
    with pytest.raises(DataError, match="holds no mapping"):
        read_tokenizer(empty)
    write(empty, tokenizer__json={"model": 1})
    with pytest.raises(DataError, match="has no model"):
        read_tokenizer(empty)
    write(empty, tokenizer__json={"model": {"type": "WordLevel", "vocab": {}}})
    with pytest.raises(DataError, match="the model 'WordLevel' is not one that zoo knows"):
        read_tokenizer(empty)
    write(empty, tokenizer__json={"model": {"type": "WordPiece", "vocab": {}}})
    with pytest.raises(DataError, match="The tokenizers library refuses these files"):
        read_tokenizer(empty)
    merges = (folder / "merges.txt").read_text()
    write(folder, merges__txt=merges + "alone\n")
    with pytest.raises(DataError, match="'alone' is no pair"):
        read_tokenizer(folder)
    write(folder, merges__txt="a b</w>\n")
    with pytest.raises(ConfigError, match="read it with kind='word-bpe'"):
        read_tokenizer(folder)


def test_code_of_a_repository_is_never_run(folder):
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    settings = {"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["evil.Evil"]}}
    write(folder, tokenizer_config__json=settings)
    with pytest.raises(DataError, match="'EvilTokenizer' is Python code of its repository"):
        read_tokenizer(folder)
    assert read_tokenizer(folder, kind="byte-bpe").encode("a")  # its files are harmless
    read_tokenizer(folder, kind="byte-bpe").save(folder)
    write(folder, tokenizer_config__json=settings)
    assert read_tokenizer(folder).encode("a")  # as is its tokenizer.json


def test_a_newer_format_is_refused(folder):
    read_tokenizer(folder).save(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["zoo"]["format"] = 2
    write(folder, tokenizer_config__json=settings)
    with pytest.raises(DataError, match="upgrade zoo"):
        read_tokenizer(folder)


def test_every_public_name_is_read_by_one_node():
    from zoo.registry import read_mapping

    claimed: dict[str, str] = {}
    for name in names("tokenizer"):
        for public in read_mapping("tokenizer", name).get("reads") or ():
            assert claimed.setdefault(public, name) == name, public
    wanted = {"GPT2Tokenizer", "BertTokenizer", "T5Tokenizer", "LlamaTokenizer", "MarianTokenizer"}
    assert wanted <= set(claimed)


def test_a_node_without_files_says_where_they_are(tmp_path):
    from zoo.registry import build

    with pytest.raises(ConfigError, match="lie in openai-community/gpt2 on the hub"):
        build(read_node("tokenizer", "gpt2"))
    with pytest.raises(DataError, match=r"names no folder, so it holds no spiece\.model"):
        build(read_node("tokenizer", "t5", {"repo": None}))
    with pytest.raises(DataError, match="no such folder of tokenizer files"):
        build(read_node("tokenizer", "gpt2"), folder=tmp_path / "missing")
    with pytest.raises(DataError, match="shipped tokenizer 'nothing' is missing"):
        build(read_node("tokenizer", "gpt2", {"folder": "nothing"}))


def test_tiktoken_files(tmp_path):
    ranks = "IQ== 0\nIg== 1\nISI= 2\n"  # ! " !"
    (tmp_path / "x.tiktoken").write_text(ranks)
    ours = read_tokenizer(tmp_path / "x.tiktoken", {"special": {"eos": "<eos>"}})
    assert ours.encode('!"!"') == [2, 2] and ours.eos_id == 3
    (tmp_path / "x.tiktoken").write_text("not base64 at all")
    with pytest.raises(DataError, match="no tiktoken file"):
        read_tokenizer(tmp_path / "x.tiktoken")
