"""YouTokenToMe against what its own library 1.0.6 made of the same models and texts
(youtokentome.json: models that it trained, one written by hand), and ruDALL-E's use of it."""

import json
from pathlib import Path

import pytest
import torch

import zoo
from zoo.errors import ConfigError, DataError
from zoo.registry import build, resolve
from zoo.tokenizers.text import read_tokenizer
from zoo.weights.formats import find_format

CASES = {
    case["name"]: case
    for case in json.loads(Path(__file__).with_name("youtokentome.json").read_text("utf-8"))
}
ROLES = {"bos": "<BOS>", "eos": "<EOS>", "unk": "<UNK>", "pad": "<PAD>"}


def made(folder, model, **keys):
    (folder / "bpe.model").write_text(model)
    return build(resolve("tokenizer", {"kind": "youtokentome", **keys}), folder=folder)


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def test_ids_and_texts_are_the_librarys(case, tmp_path):
    tokenizer = made(tmp_path, case["model"], special={"unk": "<UNK>"})
    assert [tokenizer.id_to_token(n) for n in range(len(tokenizer))] == case["vocabulary"]
    assert tokenizer.encode(case["texts"]) == case["ids"]
    assert [tokenizer.decode(ids) for ids in case["ids"]] == case["decoded"]


def test_rules_are_applied_first_ones_first(case, tmp_path):
    """The defining property, by another way: all rules in their order, each wherever it fits from
    the left, and anew after every merge."""
    head, *rows = [list(map(int, line.split())) for line in case["model"].splitlines()]
    characters = {chr(code): number for code, number in rows[: head[0]]}
    rules = rows[head[0] : -1]
    tokenizer = made(tmp_path, case["model"])
    for word in {word for text in case["texts"] for word in text.split()}:
        if not set(word) <= characters.keys() - {"▁"}:
            continue
        ids = [characters[character] for character in "▁" + word]
        fits = True
        while fits:
            fits = False
            for left, right, merged in rules:
                places = [i for i in range(len(ids) - 1) if ids[i : i + 2] == [left, right]]
                if places:
                    ids[places[0] : places[0] + 2] = [merged]
                    fits = True
                    break
        assert tokenizer.encode(word) == ids, word


def test_it_is_written_and_read_again(tmp_path):
    case = CASES["russian"]
    tokenizer = made(tmp_path, case["model"], special=ROLES, lowercase=True, single="<BOS> $A")
    tokenizer.save(tmp_path / "out")
    again = read_tokenizer(tmp_path / "out")
    assert (tmp_path / "out" / "bpe.model").read_text() == case["model"]
    assert again.encode(case["texts"]) == tokenizer.encode(case["texts"])
    assert again.encode("Красный") == [again.bos_id, *again.encode("красный", special=False)]


BROKEN = {
    "a rule of what is not there": (
        "4 1\n9601 4\n97 5\n98 6\n99 7\n5 9 8\n1 0 2 3\n",
        "rule 1 merges",
    ),
    "two tokens of one number": ("2 0\n9601 4\n97 0\n1 0 2 3\n", "two tokens have one number"),
    "no mark": ("1 0\n97 4\n1 0 2 3\n", "there is no '▁'"),
    "no token for the unknown": ("1 0\n9601 4\n-1 0 2 3\n", "lacks the token '<UNK>'"),
    "a row less than it says": ("2 1\n9601 4\n97 5\n1 0 2 3\n", "is no model of YouTokenToMe's"),
    "something else": ("\n\x0b{}", "is no model of YouTokenToMe's"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_model_is_refused(name, tmp_path):
    model, said = BROKEN[name]
    with pytest.raises(DataError, match=said):
        made(tmp_path, model)


def test_files_that_lie_apart_need_a_repository():
    with pytest.raises(ConfigError, match=r"apart: name the repository"):
        resolve("tokenizer", {"kind": "youtokentome", "apart": True})


def test_rudalle_reads_russian(tmp_path, monkeypatch):
    """Weights come from one repository, the tokenizer's file from another; what is read is what
    their code makes: <BOS>, the text in lower case, <EOS>, zeros."""
    small = ["visual=fsq-digits", "bases={visual: fsq-digits}", "vocabulary=136", "text_length=8"]
    small += ["tokenizer.length=8", "backbone.layers=[]"]
    small += [f"backbone.{key}" for key in ("depth=1", "width=32", "attention.heads=2")]
    model = zoo.create("rudalle-malevich", *small, seed=0)
    case, folders = CASES["russian"], {}
    for repo in ("ai-forever/rudalle-Malevich", "ai-forever/rudalle-utils"):
        folders[repo] = tmp_path / repo
        folders[repo].mkdir(parents=True)
    own = {n: tensor for n, tensor in model.state_dict().items() if not n.startswith("visual.")}
    state = find_format("rudalle", "generator").weight_map(model.config).export(own)
    torch.save(state, folders["ai-forever/rudalle-Malevich"] / "pytorch_model_v3.bin")
    (folders["ai-forever/rudalle-utils"] / "bpe.model").write_text(case["model"])
    monkeypatch.setattr("zoo.hub.client.pull", lambda repo, *rest, **options: folders[repo])
    model = zoo.load("rudalle-malevich", *small, allow_pickle=True)
    zoo.save(model, tmp_path / "out")
    monkeypatch.delattr("zoo.hub.client.pull")
    for one in (model, zoo.load(f"dir:{tmp_path / 'out'}")):
        tokens, mask = one.read_text(["Красный кот", "кот"])
        for row, text in zip(tokens.tolist(), ("красный кот", "кот"), strict=True):
            ids = one.tokenizer.encode(text, special=False)
            assert row == [2, *ids, 3] + [0] * (6 - len(ids)), "their layout"
        assert torch.equal(mask, tokens != 0)
        codes = one.draw_codes(["красный кот"], seed=0)
        assert codes.shape == (1, 64) and codes.max() < 128
