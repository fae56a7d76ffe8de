"""A frozen T5 that reads the prompt: by name, never trained, its features kept on disk."""

import pytest
import torch
import transformers

import zoo
from zoo.data.codes import CodesData
from zoo.errors import ConfigError
from zoo.models.base import build_empty, initialise
from zoo.registry import build, resolve
from zoo.training.run import train

LENGTH = 32
HEADS = {"heads": 2, "head_dim": 12}
T5 = {
    "kind": "seq2seq",
    "vocabulary": 384,
    "tokenizer": "byt5",
    "special": {"pad": 0, "eos": 1, "start": 0},
    "encoder": {"name": "t5-encoder", "depth": 2, "width": 24, "attention": HEADS,
                "feedforward": {"hidden": 32}},
    "decoder": {"name": "t5-decoder", "depth": 1, "width": 24, "attention": HEADS,
                "cross_attention": HEADS, "feedforward": {"hidden": 32}},
}  # fmt: skip
STACK = {"kind": "transformer", "depth": 1, "width": 16, "position": "learned-axial",
         "attention": {"heads": 2}}  # fmt: skip
CROSS = {**STACK, "cross_attention": {"name": "multihead", "heads": 2}}
WAYS = {  # as Muse reads it, and as LlamaGen does
    "muse": ("masked-codes", {"backbone": CROSS, "learned_nothing": False}),
    "muse, learned nothing": ("masked-codes", {"backbone": CROSS}),
    "llamagen": ("next-code", {"backbone": {**STACK, "causal": True}}),
}


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    """A folder with a random T5 over bytes, as transformers saves one."""
    folder = tmp_path_factory.mktemp("t5")
    config = transformers.T5Config(
        vocab_size=384, d_model=24, d_kv=12, num_heads=2, d_ff=32, num_layers=2,
        num_decoder_layers=1, decoder_start_token_id=0)  # fmt: skip
    torch.manual_seed(3)
    theirs = transformers.T5ForConditionalGeneration(config).eval()
    theirs.save_pretrained(folder)
    transformers.ByT5Tokenizer().save_pretrained(folder)
    return folder, theirs


def model_of(t5, way, **more):
    folder, _ = t5
    reader = {**T5, "decoder": {**T5["decoder"], "depth": 0}}  # the encoder alone
    return {
        "kind": "generator",
        "visual": "fsq-digits",
        "features": 24,
        "features_length": LENGTH,
        "reader": reader,
        "reader_layer": None,
        "reader_masks": True,
        "bases": {"visual": "fsq-digits", "reader": f"dir:{folder}"},
        **WAYS[way][1],
        **more,
    }


def experiment(t5, way, folder, **changes):
    config = {
        "kind": "train",
        "model": model_of(t5, way),
        "data": {"name": "codes", "source": "colour-digits", "tokenizer": "fsq-digits",
                 "folder": str(t5[0] / "codes"), "reader": f"dir:{t5[0]}",
                 "reader_length": LENGTH},
        "objective": {"name": WAYS[way][0], "drop": 0.5},
        "optim": {"name": "adamw", "lr": 0.01},
        "trainer": {"steps": 2, "batch": 8, "best": "last"},
        "run": {"dir": str(folder / "run")},
        **changes,
    }  # fmt: skip
    return resolve("experiment", config)


@pytest.fixture(scope="module", params=WAYS)
def trained(request, t5, tmp_path_factory):
    """Returns (way, the folder of a run of two steps, its model)."""
    folder = tmp_path_factory.mktemp("run")
    train(experiment(t5, request.param, folder), quiet=True)
    return request.param, folder, zoo.load(f"dir:{folder / 'run'}")


def their_features(t5, text):
    """Returns what transformers' encoder makes of a text (1 m d)."""
    tokens = torch.tensor([[*(byte + 3 for byte in text.encode()), 1]])
    with torch.no_grad():
        return t5[1].encoder(input_ids=tokens).last_hidden_state


def test_features_on_disk_are_transformers(t5, trained):
    _, folder, _ = trained
    data = CodesData(experiment(t5, "muse", folder).data)
    batch = data.split("test").batch([0, 5, 11])
    assert batch["features"].shape == (3, LENGTH, 24)
    for text, row, mask in zip(batch["captions"], batch["features"], batch["features_mask"]):
        expected = their_features(t5, text)[0]
        assert int(mask.sum()) == len(expected) == len(text) + 1
        torch.testing.assert_close(row[: len(expected)], expected, atol=1e-5, rtol=1e-4)


def test_the_reader_is_whats_named_and_stays_frozen(t5, trained):
    _, _, model = trained
    names = {name for name, p in model.reader.named_parameters() if p.requires_grad}
    assert not names and not model.reader.decoder.layers
    theirs = t5[1].state_dict()
    assert torch.equal(model.reader.embedding.table.weight, theirs["shared.weight"])
    ours = model.reader.state_dict()
    first = "encoder.block.0.layer.0.SelfAttention."
    expected = torch.cat([theirs[f"{first}{name}.weight"] for name in "qkv"])
    assert torch.equal(ours["encoder.layers.0.attention.qkv.weight"], expected)


@torch.inference_mode()
def test_a_prompt_is_read_as_the_features_that_were_kept(t5, trained):
    """Drawing from words is drawing from what T5 makes of them, with guidance too."""
    _, _, model = trained
    text = "a handwritten red three"
    told = {"features": their_features(t5, text)}
    options = {"seed": 1, "guidance": 3.0} | ({} if model.config.causal else {"steps": 2})
    found = model.draw_codes([text], **options)
    if model.config.learned_nothing:
        assert torch.equal(found, model.draw_codes([text], features=told, **options))
    other = model.draw_codes(["a handwritten blue seven"], **options)
    assert found.shape == other.shape == (1, 64)
    asked, same = model.condition([text]), model.prompt(1, **told)
    codes = torch.zeros(1, 64, dtype=torch.long)
    one, two = (model.score(codes, c).logits for c in (asked, same))
    torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(one, model.score(codes, model.condition([None])).logits)


def test_the_kept_features_are_not_made_again(t5, trained, monkeypatch):
    way, folder, _ = trained

    def refuse(*words):
        raise AssertionError("the text model ran again")

    if WAYS[way][1].get("learned_nothing", True):  # else it reads the empty prompt, once
        monkeypatch.setattr("zoo.models.text.seq2seq.Seq2Seq.read", refuse)
    run = {"dir": str(folder / "again")}
    train(experiment(t5, way, folder, run=run), quiet=True)


def test_the_branch_of_nothing_is_trained(t5, trained):
    way, folder, model = trained
    config = experiment(t5, way, folder)
    objective = build(config.objective)
    data = CodesData(config.data)
    objective.check(model, data)
    batch = data.split("train").batch(range(8), torch.arange(8))
    drop = torch.arange(8) % 2 == 0
    told = objective.asked(batch, drop)
    torch.testing.assert_close(told["features"][1], batch["features"][1])
    # without what was kept, the reader makes the same of the captions
    bare = {name: batch[name] for name in ("captions", "codes")}
    again = model.reading(objective.asked(bare, drop))
    for name in ("features", "features_mask"):
        seen = told["features_mask"] if name == "features" else torch.ones_like(again[name])
        torch.testing.assert_close(again[name][seen], told[name][seen], atol=1e-5, rtol=1e-4)
    if model.config.learned_nothing:
        assert torch.equal(told["features"][0], model.prompt.nothing)
        told["features"].sum().backward()
        assert model.prompt.nothing.grad.abs().sum() > 0
        model.zero_grad()
    else:
        expected = their_features(t5, "")[0]
        torch.testing.assert_close(told["features"][0, :1], expected, atol=1e-5, rtol=1e-4)
        assert told["features_mask"][0].tolist() == [True] + [False] * (LENGTH - 1)


def test_what_does_not_fit_is_one_sentence(t5, trained, tmp_path):
    way, folder, model = trained
    config = experiment(t5, way, folder)
    config.data.reader_length = 8
    with pytest.raises(ConfigError, match=r"was made with another length \(32 instead of 8\)"):
        CodesData(config.data).split("test")
    with pytest.raises(ConfigError, match="features: the reader gives 24 channels, not 48"):
        resolve("model", model_of(t5, way, features=48))
    with pytest.raises(ConfigError, match="pooled: the reader gives 0 channels, not 24"):
        resolve("model", model_of(t5, way, pooled=24))
    with pytest.raises(ConfigError, match="reader: a vit model makes no features of texts"):
        resolve("model", model_of(t5, way, reader="vit-digits"))
    data = CodesData(experiment(t5, way, folder).data)
    batch = data.split("test").batch([0])
    objective = build(config.objective)
    objective.check(model, data)
    batch["features"] = torch.zeros(1, 4, 7)
    with pytest.raises(ConfigError, match="it gives 7 channels, and the model reads 24"):
        objective.asked(batch, torch.tensor([False]))


def test_without_a_reader_a_prompt_of_words_is_refused():
    model = zoo.create("muse-3b", "reader=null", "bases={}", "backbone.depth=1", device="meta")
    with pytest.raises(ConfigError, match="this model has no reader of texts"):
        model.condition(["a cat"])


def test_features_that_nobody_makes_are_one_sentence(t5):
    node = {"kind": "generator", "visual": "fsq-digits", "features": 24, "backbone": CROSS}
    objective = build(resolve("objective", "masked-codes"))
    data = build(resolve("data", "colour-digits"))
    objective.check(initialise(build_empty(resolve("model", node))), data)
    with pytest.raises(ConfigError, match="the model reads features of texts, and nothing makes"):
        objective.asked({"captions": ["a three"]}, torch.tensor([False]))


def test_the_papers_names_read_t5():
    papers = {"muse-3b": ("t5-v1.1-xxl", 4096), "llamagen-xl-t2i": ("flan-t5-xl", 2048)}
    for name, (reader, width) in papers.items():
        typed = zoo.config(name)
        assert typed.bases["reader"] == reader and typed.features == width
        assert typed.reader.encoder == zoo.config(reader).encoder
        assert typed.reader.decoder.depth == 0 and typed.reader_layer is None
