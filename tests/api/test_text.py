"""A tokenizer by name: nodes, models, folders and repositories."""

import pytest

from zoo.api.text import tokenizer
from zoo.errors import ConfigError, UnknownName
from zoo.tokenizers.text import train_tokenizer

TEXTS = ["import os", "to be or not to be, that is the question", "naïve 漢字"] * 10


def test_nodes_and_overrides(tmp_path):
    ours = tokenizer("stdlib-bpe", "padding=left", length=7)
    assert ours.config.padding == "left" and ours.config.length == 7
    train_tokenizer("gpt2", TEXTS, 300).save(tmp_path)
    ours = tokenizer("gpt2", folder=tmp_path)
    assert ours.eos_id == 0 and 256 < ours.vocabulary <= 300
    assert tokenizer(f"dir:{tmp_path}", "padding=left").config.padding == "left"


def test_a_repository_is_pulled_with_all_it_needs(hub, api, tmp_path):
    folder = tmp_path / "made"
    made = train_tokenizer("byte-bpe", TEXTS, 300, chat="chatml")
    made.save(folder)
    (folder / "model.safetensors").write_bytes(b"large")
    (folder / "code.py").write_text("raise SystemExit")
    api.create_repo("acme/tok")
    api.upload_folder(repo_id="acme/tok", folder_path=folder)
    ours = tokenizer("hf:acme/tok@main", "padding=left")
    assert ours.encode(TEXTS) == made.encode(TEXTS) and ours.config.padding == "left"
    assert ours.chat([{"role": "user", "content": "q"}]).startswith("<|im_start|>user")
    assert not hub.count("GET", "safetensors") and not hub.count("GET", "code.py")


def test_a_node_whose_files_lie_on_the_hub(hub, api, tmp_path):
    made = train_tokenizer("gpt2", TEXTS, 300)
    made.save(tmp_path / "made")
    api.create_repo("openai-community/gpt2")
    api.upload_folder(repo_id="openai-community/gpt2", folder_path=tmp_path / "made")
    assert tokenizer("gpt2").encode(TEXTS) == made.encode(TEXTS)


def test_a_model_gives_its_weights_tokenizer(hub, api, tmp_path):
    made = train_tokenizer("llama", TEXTS, 420)
    made.save(tmp_path / "made")
    api.create_repo("lmsys/vicuna-7b-v1.5")
    api.upload_folder(repo_id="lmsys/vicuna-7b-v1.5", folder_path=tmp_path / "made")
    assert tokenizer("vicuna-7b-v1.5").encode(TEXTS) == made.encode(TEXTS)


def test_what_is_refused():
    with pytest.raises(UnknownName, match="Did you mean 'stdlib-bpe'"):
        tokenizer("stdlib-bp")
    with pytest.raises(ConfigError, match="is a patches tokenizer, not one of text"):
        tokenizer("patches")
