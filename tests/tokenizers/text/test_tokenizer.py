"""What a person does with a tokenizer: ids, batches, roles, cuts, and what goes wrong."""

import copy
import json
import pickle
import subprocess
import sys

import pytest
import torch

from zoo.errors import ConfigError, DataError
from zoo.registry import build, read_node, resolve
from zoo.tokenizers.text import TextBatch, read_tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def bert(corpus):
    return train_tokenizer("bert", corpus, 1000)


@pytest.fixture(scope="module")
def shipped():
    return build(read_node("tokenizer", "stdlib-bpe"))


def test_one_text_and_several(shipped):
    assert shipped.encode("import os") == shipped.encode(["import os", ""])[0]
    assert shipped.encode([]) == []
    assert shipped.encode(("import os",)) == [shipped.encode("import os")]
    assert shipped.decode([]) == ""
    assert shipped.decode(shipped.encode(["a b", "c"])) == ["a b", "c"]
    assert shipped.decode(torch.tensor(shipped.encode("import os"))) == "import os"
    assert shipped.decode(torch.tensor([shipped.encode("import os")] * 2)) == ["import os"] * 2
    assert shipped.decode(shipped.token_to_id("import")) == "import"


def test_batches_are_filled_up_on_either_side(bert):
    rows = bert.encode(["import os", "return"])
    assert len(rows[0]) != len(rows[1])
    for side in ("right", "left"):
        batch = bert(["import os", "return"], padding=side)
        assert isinstance(batch, TextBatch)
        tokens, mask = batch
        assert tokens.dtype == torch.long and mask.dtype == torch.bool
        assert [row[keep].tolist() for row, keep in zip(tokens, mask)] == rows
        assert (tokens[~mask] == bert.pad_id).all()
        empty = mask[int(len(rows[0]) > len(rows[1]))]
        assert empty[0] == (side == "right") and empty[-1] == (side == "left")
    tokens, mask = bert("import", pad_to=9, multiple=8)
    assert tokens.shape == mask.shape == (1, 16)
    tokens, _ = bert(["import os", "return"], length=3)
    assert tokens.shape == (2, 3) and (tokens[:, 0] == bert.cls_id).all()


def test_segments_tell_two_texts_apart(bert):
    batch = bert(["import", "os"], ["os", "import"], padding="left")
    assert batch.segments.masked_select(batch.mask).unique().tolist() == [0, 1]
    ids = bert.encode("import", "os")
    assert [ids[0], ids[-1]] == [bert.cls_id, bert.sep_id]
    assert ids.count(bert.sep_id) == 2


def test_padding_needs_a_token(corpus):
    bare = train_tokenizer("byte-bpe", corpus, 400, special={"eos": "</s>"})
    assert bare(["a", "b"]).mask.all()  # equally long: nothing to fill
    with pytest.raises(DataError, match=r"set tokenizer\.special\.pad"):
        bare(["a", "a longer text"])
    with pytest.raises(DataError, match="must be 'right' or 'left', got 'middle'"):
        bare(["a"], padding="middle")


def test_roles(shipped):
    assert shipped.special["eos"] == "<|endoftext|>"
    assert shipped.eos_id == shipped.special_id("eos") == 0
    assert shipped.unk_id is None
    assert shipped.mask_id in shipped.special_ids
    assert shipped.target is shipped
    with pytest.raises(DataError, match=r"no role 'end'"):
        shipped.special_id("end")
    assert [shipped.id_to_token(i) for i in shipped.sentinel_ids[:2]] == [
        "<extra_id_0>",
        "<extra_id_1>",
    ]
    assert len(shipped.sentinel_ids) == 64


def test_the_vocabulary_and_its_ends(shipped):
    assert len(shipped) == shipped.vocabulary == 4096
    assert shipped.token_to_id(shipped.id_to_token(4095)) == 4095
    for number in (-1, 4096):
        with pytest.raises(DataError, match="outside the vocabulary of 4096"):
            shipped.id_to_token(number)
    with pytest.raises(DataError, match="Token 4096 is not in the vocabulary"):
        shipped.decode([4096])
    with pytest.raises(DataError, match=r"'<\|eot\|>' is no token of this vocabulary"):
        shipped.token_to_id("<|eot|>")


def test_special_tokens_in_strangers_text_are_only_text(shipped):
    text = "stop <|endoftext|> here"
    assert shipped.eos_id in shipped.encode(text)
    ids = shipped.encode(text, control=False)
    assert shipped.eos_id not in ids
    assert shipped.decode(ids) == text
    assert shipped.decode(shipped.encode(text), skip_special=True) == "stop  here"


def test_what_is_no_text(shipped):
    for wrong in (b"bytes", 3, None, ["ok", 3], [["a"]]):
        with pytest.raises((DataError, TypeError)):
            shipped.encode(wrong)
    with pytest.raises(DataError, match="A text is a string, not int"):
        shipped.encode(["ok", 3])
    with pytest.raises(DataError, match="half a surrogate pair"):
        shipped.encode("broken \ud83d emoji")
    with pytest.raises(DataError, match="2 texts and 1 second texts do not pair up"):
        shipped.encode(["a", "b"], ["c"])


def test_a_cut_leaves_room_for_special_tokens(bert):
    assert bert.encode("import os and return", length=2) == [bert.cls_id, bert.sep_id]
    with pytest.raises(DataError, match="length: 1 is less than the 2 special tokens"):
        bert.encode("import", length=1)
    assert bert.encode("import os and return", length=0, special=False) == []


def test_spans_point_into_the_text(bert):
    text = "Import OS, dann zurück"
    spans = bert.spans(text)
    assert len(spans) == len(bert.encode(text, special=False))
    start, end = spans[0]
    assert "import".startswith(text[start:end].lower()) and end > start
    assert spans == sorted(spans)


def test_pieces(shipped, bert):
    assert shipped.pieces("import os") == ["import", "Ġos"]
    assert bert.pieces("import", special=True)[0] == "[CLS]"


def test_layout_and_sides_by_override(shipped):
    config = read_node(
        "tokenizer", "stdlib-bpe", ["single=<|cls|> $A <|sep|>", "padding=left", "truncation=left"]
    )
    ours = build(config)
    ids = ours.encode("import os")
    assert ids == [ours.cls_id, *shipped.encode("import os"), ours.sep_id]
    # a pair repeats the layout of one text
    assert ours.encode("import", "os") == ours.encode("import") + ours.encode("os")
    assert not ours(["import os", "os"]).mask[1, 0]
    assert ours.encode("import os", length=3)[1:-1] == shipped.encode(" os")
    with pytest.raises(ConfigError, match=r"names '<s>', which the vocabulary does not hold"):
        build(read_node("tokenizer", "stdlib-bpe", ["single=<s> $A"]))
    with pytest.raises(ConfigError, match=r"single: '<s>' must hold \$A"):
        read_node("tokenizer", "stdlib-bpe", ["single=<s>"])


def test_a_new_special_token_gets_an_id_at_the_end(shipped):
    config = read_node("tokenizer", "stdlib-bpe", {"special.extra": ["<|image|>"]})
    ours = build(config)
    assert ours.vocabulary == 4097
    assert ours.encode("see <|image|>!")[-2] == ours.token_to_id("<|image|>") == 4096


def test_pipeline_settings_lie_over_the_files(shipped, tmp_path):
    ours = build(read_node("tokenizer", "stdlib-bpe", ["prefix_space=true", "pattern=gpt4"]))
    assert ours.encode("import") == shipped.encode(" import")
    assert ours.decode(ours.encode("import")) == " import"
    ours.save(tmp_path)
    assert read_tokenizer(tmp_path).encode("import") == ours.encode("import")


def test_the_wrong_kind_is_refused(tmp_path, bert):
    bert.save(tmp_path)
    with pytest.raises(ConfigError, match="holds a wordpiece tokenizer, not byte-bpe"):
        build(resolve("tokenizer", "gpt2"), folder=tmp_path)


def test_copies_and_pickles(shipped, bert):
    for one in (shipped, bert, build(read_node("tokenizer", "byt5"))):
        text = "import os\n\treturn 漢字"
        for other in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
            assert other.encode(text) == one.encode(text)
            assert other.decode(one.encode(text)) == one.decode(one.encode(text))


def test_reading_costs_no_torch_and_schemas_no_library():
    code = (
        "import sys\n"
        "import zoo.tokenizers.text, zoo.tokenizers.text.schema, zoo.data.text.schema\n"
        "from zoo.registry import names, read_node\n"
        "[read_node('tokenizer', name) for name in names('tokenizer')]\n"
        "assert not {'torch', 'tokenizers', 'jinja2', 'numpy'} & set(sys.modules)\n"
        "from zoo.registry import build\n"
        "build(read_node('tokenizer', 'stdlib-bpe')).encode('import os')\n"
        "assert not {'torch', 'transformers', 'sentencepiece'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_library_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"pip install multimodal-zoo\[text\]"):
        build(read_node("tokenizer", "stdlib-bpe"))


def test_shipped_vocabulary(shipped):
    from pathlib import Path

    import zoo

    folder = Path(zoo.__file__).parent / "assets" / "tokenizer-stdlib"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 200_000
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["zoo"]["config"]["kind"] == "byte-bpe"
    assert read_tokenizer(folder).encode("def f(x):") == shipped.encode("def f(x):")
