"""Verbs of text models: strings in, strings out."""

import io

import pytest
import torch

import zoo
from zoo.cli import main
from zoo.errors import ConfigError, DataError
from zoo.models.base import build_empty, initialise
from zoo.models.text.steps import CausalSteps
from zoo.nn.cache import CACHES, Int8Cache
from zoo.registry import resolve
from zoo.tokenizers.text import train_tokenizer

TEXTS = ["def f(x):\n    return x + 1\n", "the cat sat on the mat", "import os, sys"] * 5
BACKBONE = {"depth": 2, "width": 32, "length": 64, "position": "learned"}


@pytest.fixture(scope="module")
def tokenizer():
    special = {"eos": "</s>", "pad": "<pad>", "mask": "<mask>"}
    return train_tokenizer("byte-bpe", TEXTS, vocabulary=320, special=special)


def make(kind, tokenizer, **more):
    config = resolve("model", {"kind": kind, "vocabulary": tokenizer.vocabulary, **more})
    model = initialise(build_empty(config), 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    model.tokenizer = tokenizer
    return model


@pytest.fixture(scope="module")
def causal(tokenizer):
    return make(
        "causal-lm",
        tokenizer,
        tied=False,
        backbone={"kind": "transformer", "causal": True, **BACKBONE},
    )


@pytest.fixture(scope="module")
def masked(tokenizer):
    return make("masked-lm", tokenizer, backbone=BACKBONE)


@pytest.fixture(scope="module")
def seq2seq(tokenizer):
    return make(
        "seq2seq",
        tokenizer,
        tied=False,
        special={"start": tokenizer.pad_id},
        encoder={"depth": 1, "width": 32},
        decoder={"depth": 1, "width": 32},
    )


def test_streaming_speculating_and_batching_say_the_same(causal):
    prompts = ["the cat", "def f(x):", "import"]
    together = causal.generate(prompts, max_new_tokens=12)
    for prompt, expected in zip(prompts, together, strict=True):
        assert causal.generate(prompt, max_new_tokens=12) == expected
        assert "".join(causal.stream(prompt, max_new_tokens=12)) == expected
        assert causal.generate(prompt, max_new_tokens=12, draft="prompt") == expected
        assert causal.generate(prompt, max_new_tokens=12, draft=causal) == expected
        assert causal.report.acceptance == 1.0


def test_stop_strings_are_cut_also_while_streaming(causal):
    whole = causal.generate("the cat", max_new_tokens=12)
    stop = whole[3:5]
    expected = whole[: whole.find(stop)]
    assert causal.generate("the cat", max_new_tokens=12, stop=[stop]) == expected
    assert "".join(causal.stream("the cat", max_new_tokens=12, stop=[stop])) == expected


def test_several_results(causal):
    drawn = causal.generate("the", max_new_tokens=5, temperature=9.0, results=3, seed=0)
    assert len(drawn) == 3 and len(set(drawn)) > 1
    assert drawn == causal.generate("the", max_new_tokens=5, temperature=9.0, results=3, seed=0)
    assert len(causal.generate("the", max_new_tokens=5, beams=4, results=2)) == 2


def test_an_empty_prompt_begins_a_text(causal, tokenizer):
    with pytest.raises(DataError, match="The prompt is empty, and no token"):
        causal.generate(["the cat", ""])
    with pytest.raises(DataError, match="The prompt is empty, and no token"):
        list(causal.stream(""))
    begins = make(
        "causal-lm",
        tokenizer,
        tied=False,
        backbone={"kind": "transformer", "causal": True, **BACKBONE},
        special={"bos": tokenizer.eos_id},
    )
    steps = CausalSteps(begins)
    with torch.inference_mode():
        first = int(steps.step(torch.tensor([[tokenizer.eos_id]])).argmax())
    expected = begins.generate("", max_new_tokens=6)
    assert expected and expected.startswith(tokenizer.decode([first]))
    assert "".join(begins.stream("", max_new_tokens=6)) == expected
    assert begins.generate(["the cat", ""], max_new_tokens=6)[1] == expected
    assert begins.generate([]) == []


def test_what_one_stream_cannot_give_is_refused(causal, seq2seq):
    for model in (causal, seq2seq):
        for more in ({"beams": 3}, {"results": 2, "temperature": 1.0}):
            with pytest.raises(ConfigError, match="what is streamed is one answer"):
                list(model.stream("the cat", **more))


def test_a_cache_of_8_bits_serves_every_way_of_answering(causal, monkeypatch):
    made = []
    monkeypatch.setitem(CACHES, "int8", lambda: made.append(Int8Cache()) or made[-1])
    given = {"max_new_tokens": 12, "cache": "int8"}
    answer = causal.generate("the cat", **given)
    assert causal.generate(["the cat", "def f(x):"], **given)[0] == answer
    assert "".join(causal.stream("the cat", **given)) == answer
    assert causal.generate("the cat", draft="prompt", **given) == answer
    causal.generate("the cat", beams=2, **given)
    assert len(made) == 5 and all(cache.length > 12 for cache in made)
    full = CausalSteps(causal)
    with torch.inference_mode():
        full.step(torch.zeros(1, made[0].length, dtype=torch.long))
    held = [t[:, :, : cache.length].nbytes for cache in made[:1] for t in held_by(cache)]
    assert sum(held) < 0.4 * sum(t[:, :, : full.cache.length].nbytes for t in held_by(full.cache))
    with pytest.raises(ConfigError, match=r"cache: there is no 'int4'.*Did you mean 'int8'"):
        causal.generate("the cat", cache="int4")
    with pytest.raises(ConfigError, match="leave cache out"):
        causal.generate("the cat", prompt_cache="any.safetensors", cache="int8")


def held_by(cache):
    """Returns every buffer of a cache."""
    parts = [cache.numbers, cache.scales] if isinstance(cache, Int8Cache) else [cache]
    return [t for part in parts for pair in part.buffers.values() for t in pair]


def test_only_a_decoder_guesses(causal, masked):
    with pytest.raises(ConfigError, match="draft: only 'prompt' or a loaded decoder-only model"):
        causal.generate("the cat", draft=masked)


def test_unknown_options_are_refused(causal):
    with pytest.raises(ConfigError, match="Did you mean 'temperature'"):
        causal.generate("the", temprature=1.0)


def test_translating_in_a_batch_equals_one_by_one(seq2seq):
    texts = ["the cat", "def f(x): return"]
    together = seq2seq.translate(texts, max_new_tokens=8)
    assert together == [seq2seq.translate(text, max_new_tokens=8) for text in texts]
    assert seq2seq.translate(texts, max_new_tokens=8, beams=3) == [
        seq2seq.translate(text, max_new_tokens=8, beams=3) for text in texts
    ]


def test_translating_takes_the_options_of_generating(seq2seq):
    text = "the cat"
    whole = seq2seq.translate(text, max_new_tokens=12)
    stop = whole[2:4]
    assert "".join(seq2seq.stream(text, max_new_tokens=12)) == whole
    for said in (
        seq2seq.translate(text, max_new_tokens=12, stop=[stop]),
        "".join(seq2seq.stream(text, max_new_tokens=12, stop=[stop])),
    ):
        assert said == whole[: whole.find(stop)]
    drawn = seq2seq.translate([text, "def"], max_new_tokens=5, temperature=9.0, results=3, seed=0)
    assert [len(each) for each in drawn] == [3, 3] and len(set(drawn[0])) > 1
    assert seq2seq.translate([]) == []


def test_of_no_text_nothing_is_said(seq2seq, masked):
    for verb in (seq2seq.translate, masked.embed):
        with pytest.raises(DataError, match="The text is empty"):
            verb("")
        with pytest.raises(DataError, match="Text 2 of 3 is empty"):
            verb(["the cat", "", "def"])
    assert masked.embed([]).shape == (0, 32)


@pytest.mark.parametrize("top", [0, 321])
def test_as_many_fillings_as_there_are_tokens(masked, top):
    with pytest.raises(ConfigError, match=rf"top: from 1 to the \d+ tokens, got {top}\."):
        masked.fill("the <mask> sat", top=top)


def test_filling_and_embedding(masked):
    found = masked.fill("the <mask> sat", top=3)
    assert len(found) == 3
    assert found[0].probability >= found[1].probability >= found[2].probability
    with pytest.raises(DataError, match="exactly one mask"):
        masked.fill("no gap at all")
    vectors = masked.embed(["the cat", "import os, sys and more"])
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(2))
    assert torch.allclose(vectors[0], masked.embed("the cat"), atol=1e-5)
    with pytest.raises(ConfigError, match="'fill', not 'classify'"):
        masked.classify("x")


def test_classes_of_texts(tokenizer, tmp_path, capsys):
    labels = ["code", "prose", "import"]
    model = make(
        "masked-lm",
        tokenizer,
        task="classify",
        classes=3,
        labels=labels,
        classify_from="dense",
        backbone={**BACKBONE, "length": 16},
    )
    texts = ["the cat", "import os", "def f(x): return x + 1 " * 9]  # the last is too long
    found = model.classify(texts, top=2, batch_size=2)
    tokens, mask = tokenizer(texts, length=16)
    chances = model(tokens, mask).logits.softmax(-1)
    for row, expected in zip(found, chances, strict=True):
        values, places = expected.topk(2)
        assert [p.index for p in row] == places.tolist()
        assert [p.label for p in row] == [labels[i] for i in places]
        assert [p.probability for p in row] == pytest.approx(values.tolist(), abs=1e-5)
    assert [p.index for p in model.classify("the cat", top=2)] == [p.index for p in found[0]]
    assert len(model.classify("the cat", top=9)) == 3 and model.classify([]) == []
    with pytest.raises(ConfigError, match=r"top: must be at least 1, got 0\."):
        model.classify("the cat", top=0)
    with pytest.raises(DataError, match="The text is empty"):
        model.classify("")
    zoo.save(model, tmp_path)
    assert main(["classify", f"dir:{tmp_path}", "the cat", "import os", "--top", "1"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == texts[:2]
    assert [best.split()[0] for _, best in lines] == [row[0].label for row in found[:2]]


def test_a_model_without_a_tokenizer_says_so():
    config = resolve(
        "model", {"kind": "causal-lm", "vocabulary": 9, "backbone": {"depth": 1, "width": 8}}
    )
    with pytest.raises(DataError, match="no tokenizer"):
        initialise(build_empty(config)).generate("x")


def test_saved_models_bring_their_tokenizer_and_the_command_line_uses_them(
    causal, masked, seq2seq, tmp_path, capsys
):
    for name, model in {"c": causal, "m": masked, "s": seq2seq}.items():
        zoo.save(model, tmp_path / name)
    loaded = zoo.load(f"dir:{tmp_path}/c")
    expected = causal.generate("the cat", max_new_tokens=6)
    assert loaded.generate("the cat", max_new_tokens=6) == expected
    assert main(["generate", f"dir:{tmp_path}/c", "the cat", "--max-new-tokens", "6"]) == 0
    assert capsys.readouterr().out == expected + "\n"
    assert main(["fill", f"dir:{tmp_path}/m", "the <mask> sat", "--top", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 2
    assert main(["embed", f"dir:{tmp_path}/m", "a", "b", "--similarity"]) == 0
    assert "1.000" in capsys.readouterr().out
    assert main(["translate", f"dir:{tmp_path}/s", "the cat", "--max-new-tokens", "4"]) == 0
    expected = capsys.readouterr().out
    for more in ([], ["--beams", "1"]):
        words = ["generate", f"dir:{tmp_path}/s", "the cat", "--max-new-tokens", "4", *more]
        assert main(words) == 0 and capsys.readouterr().out == expected
    assert main(["generate", f"dir:{tmp_path}/c", "x", "--top-k", "3"]) == 2
    assert "needs a temperature above 0" in capsys.readouterr().err


def test_a_conversation_goes_on_from_one_answer(causal, tmp_path, capsys, monkeypatch):
    zoo.save(causal, tmp_path)
    chats = "tokenizer={kind: byte-bpe, chat: chatml}"
    words = ["chat", f"dir:{tmp_path}", "--set", chats, "--max-new-tokens", "4"]
    for more in ([], ["--beams", "2"]):
        monkeypatch.setattr("sys.stdin", io.StringIO("the cat\n\n"))
        assert main([*words, *more]) == 0
        told = capsys.readouterr().out
        model = zoo.load(f"dir:{tmp_path}", chats)
        given = {"beams": 2} if more else {}
        message = {"role": "user", "content": "the cat"}
        assert told == model.chat([message], max_new_tokens=4, **given) + "\n"
    assert main([*words, "--results", "2", "--temperature", "1"]) == 2
    assert "results: a conversation goes on from one answer" in capsys.readouterr().err
