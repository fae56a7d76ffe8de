"""DALL-E mini against min-dalle: states, scores and codes of random weights, exports, its words."""

# b batch: one row of nothing and one of the prompt, as min-dalle runs them; m tokens, n codes

import importlib
import importlib.util
import json
import sys
import types

import pytest
import torch

import zoo
from tests.weights.formats.parity import TOLERANCE, distance, random_weights
from zoo.errors import ConfigError, WeightsError
from zoo.generation.guidance import Guidance
from zoo.models.base import build_empty
from zoo.models.generator.sample import UNKNOWN, sample
from zoo.models.generator.schema import draw_options
from zoo.models.generator.steps import code_steps
from zoo.registry import build, resolve
from zoo.tokenizers.text.decoding import byte_alphabet
from zoo.weights.files import open_weights
from zoo.weights.formats import find_format
from zoo.weights.load import load_into

CODES = 2**14  # which its sampler counts on
MINI = {"rows": CODES, "text": 8, "side": 4, "words": 50}
ODD = {
    "like mini": {**MINI, "encoder": (2, 32, 2, 40), "decoder": (2, 32, 2, 40)},
    "like mega, rows to spare": {
        **MINI, "rows": CODES + 31, "encoder": (2, 48, 4, 64), "decoder": (2, 48, 4, 64)},
    "stacks unlike each other": {**MINI, "encoder": (1, 40, 5, 85), "decoder": (3, 40, 2, 27)},
    "one head, a long prompt, few codes": {
        **MINI, "text": 23, "side": 3, "encoder": (1, 24, 1, 7), "decoder": (1, 24, 1, 96)},
}  # fmt: skip


@pytest.fixture(scope="module")
def theirs():
    """min-dalle's classes, without its __init__, which switches gradients off for the process."""
    spec = importlib.util.find_spec("min_dalle")
    if spec is None:
        pytest.skip("min-dalle (tools/references.txt) is not installed")
    package = types.ModuleType("min_dalle")
    package.__path__ = list(spec.submodule_search_locations)
    emoji = types.ModuleType("emoji")  # of its tokenizer; no text here holds any
    emoji.demojize = lambda text, delimiters: text
    before = dict(sys.modules)
    sys.modules |= {"min_dalle": package, "emoji": emoji}
    yield types.SimpleNamespace(
        encoder=importlib.import_module("min_dalle.models.dalle_bart_encoder"),
        decoder=importlib.import_module("min_dalle.models.dalle_bart_decoder"),
        vqgan=importlib.import_module("min_dalle.models.vqgan_detokenizer"),
        text=importlib.import_module("min_dalle.text_tokenizer"),
    )
    for name in set(sys.modules) - set(before):
        if name.split(".")[0] in ("min_dalle", "emoji"):
            del sys.modules[name]


def public(odd):
    """Returns the config.json of a configuration."""
    case = ODD[odd]
    content = {
        "model_type": "dallebart",
        "is_encoder_decoder": True,
        "encoder_vocab_size": case["words"],
        "max_text_length": case["text"],
        "image_vocab_size": case["rows"],
        "image_length": case["side"] ** 2,
        "ln_positions": "normformer",
    }
    for name in ("encoder", "decoder"):
        depth, width, heads, hidden = case[name]
        content |= {
            "d_model": width,
            f"{name}_layers": depth,
            f"{name}_attention_heads": heads,
            f"{name}_ffn_dim": hidden,
        }
    return content


@pytest.fixture(params=ODD)
def odd(request):
    return request.param


@pytest.fixture
def pair(odd, theirs, monkeypatch):
    """Returns (their encoder, their decoder, ours), of the same random weights."""
    case = ODD[odd]
    monkeypatch.setattr(theirs.decoder, "IMAGE_TOKEN_COUNT", case["side"] ** 2)
    names = ("layer_count", "embed_count", "attention_head_count", "glu_embed_count")
    options = {name: dict(zip(names, case[name])) for name in ("encoder", "decoder")}
    torch.manual_seed(0)  # for the tables of positions, which random_weights leaves alone
    encoder = theirs.encoder.DalleBartEncoder(
        **options["encoder"],
        text_vocab_count=case["words"],
        text_token_count=case["text"],
        device="cpu",
    )
    decoder = theirs.decoder.DalleBartDecoder(
        **options["decoder"], image_vocab_count=case["rows"], device="cpu"
    )
    random_weights(encoder, 1), random_weights(decoder, 2)
    return encoder, decoder, ours(odd, files(encoder, decoder))


def files(encoder, decoder):
    return {
        f"{name}.{key}": tensor
        for name, module in (("encoder", encoder), ("decoder", decoder))
        for key, tensor in module.state_dict().items()
    }


def ours(odd, state):
    chosen = find_format("dalle-mini", "generator")
    config = resolve("model", {"kind": "generator", **chosen.read_config(public(odd))})
    model = build_empty(config)
    mapped = chosen.weight_map(config).load(state)
    mapped.check()
    load_into(model, mapped)
    back = chosen.weight_map(config).export(model.state_dict())
    assert back.keys() == state.keys() and all(torch.equal(back[k], state[k]) for k in state)
    written = json.loads(json.dumps(chosen.write_config(config)))
    assert resolve("model", {"kind": "generator", **chosen.read_config(written)}) == config
    return model.eval()


def prompts(odd, words=5):
    """Returns text tokens (2 m): <s></s>, and words between them."""
    case = ODD[odd]
    text = torch.ones(2, case["text"], dtype=torch.long)
    text[0, :2] = torch.tensor([0, 2])
    text[1, : words + 2] = torch.tensor([0, *range(5, 5 + words), 2])
    return text


def their_scores(decoder, state, mask, codes, start):
    """Returns their decoder's scores of every code (2 n v) in one pass."""
    before = torch.cat([torch.full((1, 1), start), codes[:, :-1]], dim=1)
    places = torch.arange(codes.shape[1])
    layers = torch.zeros(decoder.layer_count, 4, len(places), decoder.embed_count)
    return decoder(mask, state, layers, before, places)[0]


@torch.no_grad()
def test_states_and_scores(odd, pair):
    encoder, decoder, model = pair
    text = prompts(odd)
    mask = text != 1
    state = encoder(text)
    condition = model.prompt(2, text=text, text_mask=mask)
    assert distance(condition.memory[mask], state[mask]) <= TOLERANCE
    free = model.prompt(1)  # asking for nothing is their row of <s></s>
    assert distance(free.memory[:, :2], state[:1, :2]) <= TOLERANCE
    codes = torch.randint(0, CODES, (1, ODD[odd]["side"] ** 2))
    start = ODD[odd]["rows"]
    expected = their_scores(decoder, state, mask[:, None, None], codes, start)[..., :CODES]
    found = model.score(codes.expand(2, -1), condition).logits
    assert distance(found, expected) <= TOLERANCE


@torch.no_grad()
def test_guided_codes_step_by_step(odd, pair):
    """Their sampler with its cache, at top_k=1, gives the codes that ours gives at temperature 0;
    and the scores that it chooses from are our guided ones."""
    encoder, decoder, model = pair
    factor, text = 4.0, prompts(odd, 4)
    mask = (text != 1)[:, None, None]
    state, count = encoder(text), ODD[odd]["side"] ** 2
    layers = torch.zeros(decoder.layer_count, 4, count, decoder.embed_count)
    codes = torch.full((1, count + 1), ODD[odd]["rows"])  # the row that starts a picture
    for place in range(count):
        chosen, layers = decoder.sample_tokens(
            settings=torch.tensor([1.0, 1.0, factor]),
            attention_mask=mask,
            encoder_state=state,
            attention_state=layers,
            prev_tokens=codes[:, [place]],
            token_index=torch.tensor([place]),
        )
        codes[:, place + 1] = chosen
    asked = model.prompt(1, text=text[1:], text_mask=text[1:] != 1)
    options = {"guidance": factor, "temperature": 0.0}
    for together in (True, False):
        wanted = draw_options(True, {**options, "together": together})
        *_, found = sample(model, torch.full((1, count), UNKNOWN), asked, model.prompt(1), wanted)
        assert torch.equal(found, codes[:, 1:])
    steps = code_steps(model, asked, model.prompt(1), Guidance(scale=factor))
    scores = [steps.step(found[:, :0])]
    scores += [steps.step(found[:, place : place + 1]) for place in range(count - 1)]
    free, full = their_scores(decoder, state, mask, found, ODD[odd]["rows"])[..., :CODES]
    expected = free * (1 - factor) + full * factor
    assert distance(torch.cat(scores), expected) <= TOLERANCE * (2 * factor - 1)


def test_the_detokenizer_is_the_vqgan_that_is_known(theirs):
    """Its file is the second half of taming's checkpoint; pixels are not mapped from [-1, 1]."""
    with torch.device("meta"):  # 42 million numbers, drawn once
        detokenizer = theirs.vqgan.VQGanDetokenizer()
    detokenizer = random_weights(detokenizer.to_empty(device="cpu"))
    node = zoo.config("dalle-mini").visual
    tables = find_format("taming-vqgan", "visual-codes").weight_map(node)
    state = {
        ("quantize." if name.startswith("embedding.") else "") + name: tensor
        for name, tensor in detokenizer.state_dict().items()
    }
    mapped = tables.load(state)
    assert not mapped.unmatched
    model = build_empty(node)
    lost = model.load_state_dict(
        {k: v.read() for k, v in mapped.items()}, strict=False, assign=True
    )
    assert not lost.unexpected_keys
    assert {k.split(".")[0] for k in lost.missing_keys} == {"encoder", "quantizer"}
    assert {k for k in lost.missing_keys if k.startswith("quantizer")} == {
        "quantizer.project_in.weight", "quantizer.project_in.bias"}  # fmt: skip
    ids = torch.randint(0, CODES, (1, 2, 2))
    with torch.no_grad():
        vectors = detokenizer.embedding(ids).permute(0, 3, 1, 2)
        raw = detokenizer.decoder(detokenizer.post_quant_conv(vectors))
        expected = raw.clip(0.0, 1.0)
        assert 0.2 < expected.mean() < 0.8 and expected.std() > 0.1
        error = (model.eval().decode(ids) - expected).abs().max()
        assert error <= TOLERANCE * raw.abs().max()


# -- names and files -------------------------------------------------------------------------------


def test_nodes_are_min_dalles_shapes():
    """Numbers of min_dalle.MinDalle, and how many parameters its modules have."""
    for name, (layers, width, heads, hidden, words, rows, count) in {
        "dalle-mini": (12, 1024, 16, 2730, 50264, 16384, 437_962_720),
        "dalle-mega": (24, 2048, 32, 4096, 50272, 16415, 2_587_967_488),
    }.items():
        content = {"encoder_vocab_size": words, "image_vocab_size": rows, "d_model": width}
        for stack in ("encoder", "decoder"):
            content |= {
                f"{stack}_layers": layers,
                f"{stack}_attention_heads": heads,
                f"{stack}_ffn_dim": hidden,
            }
        chosen = find_format("dalle-mini", "generator")
        config = resolve("model", {"kind": "generator", **chosen.read_config(content)})
        typed = zoo.config(name)
        for key in ("encoder", "backbone", "code_rows", "start_code", "no_text", "vocabulary"):
            assert getattr(config, key) == getattr(typed, key), key
        assert (typed.codebook, typed.shape) == (CODES, (16, 16)) == (config.codebook, config.shape)
        model = zoo.create(name, device="meta")
        own = (p for n, p in model.named_parameters() if not n.startswith("visual."))
        assert sum(p.numel() for p in own) == count
        (tag,) = typed.weights.values()
        assert tag.license == "mit" and set(tag.files) == {"encoder", "decoder"}
        assert set(tag.files.values()) <= set(tag.patterns())


@torch.no_grad()
def test_two_pickles_are_one_model(odd, pair, tmp_path, monkeypatch):
    """A node with `files` reads both; an export opens by its folder and in min-dalle again."""
    if odd != "like mini":
        pytest.skip("one configuration shows it")
    from zoo.api.stored import tag_weights
    from zoo.registry import Name

    encoder, decoder, model = pair
    torch.save(encoder.state_dict(), tmp_path / "encoder_mini.pt")
    torch.save(decoder.state_dict(), tmp_path / "decoder_mini.pt")
    monkeypatch.setattr("zoo.hub.client.pull", lambda *names, **options: tmp_path)
    tags = {"mini": vars(zoo.config("dalle-mini").weights["min-dalle"])}
    config = resolve("model", {"kind": "generator", **find_format("dalle-mini", "generator")
                               .read_config(public(odd)), "weights": tags})  # fmt: skip
    with pytest.raises(WeightsError, match=r"encoder_mini\.pt is a pickle"):
        tag_weights(Name("", "model"), config)
    weights, folder = tag_weights(Name("", "model"), config, allow_pickle=True)
    assert folder == tmp_path and weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[k].read(), v) for k, v in model.state_dict().items())
    zoo.save(model, tmp_path / "out", format="dalle-mini")
    again = zoo.load(f"dir:{tmp_path / 'out'}")
    assert again.config == model.config
    written = open_weights(tmp_path / "out").read()
    for name, module in (("encoder", encoder), ("decoder", decoder)):
        inner = {k.removeprefix(f"{name}."): v for k, v in written.items() if k.startswith(name)}
        module.load_state_dict(inner)  # strict


def test_a_model_with_its_tokenizer_goes_out_and_comes_back(tmp_path):
    small = ["tokenizer=null", "visual.image=[32,32]", "visual.quantizer.size=64"]
    for half in ("encoder", "decoder"):
        small += [f"visual.{half}.{key}" for key in ("channels=32", "multipliers=[1,2]")]
        small += [f"visual.{half}.attention=[1]"]
    small += ["code_rows=65", "start_code=64", "vocabulary=40"]
    for stack in ("encoder", "backbone"):
        small += [f"{stack}.depth=1", f"{stack}.width=32", f"{stack}.attention.heads=2"]
        small += [f"{stack}.feedforward.hidden=24"]
    small += ["backbone.cross_attention.heads=2"]
    model = zoo.create("dalle-mini", *small, seed=3).eval()
    zoo.save(model, tmp_path, format="dalle-mini")
    again = zoo.load(f"dir:{tmp_path}")
    assert again.config.visual.span == model.config.visual.span
    state, back = model.state_dict(), again.state_dict()
    assert state.keys() == back.keys() and all(torch.equal(state[k], back[k]) for k in state)


WRONG = {
    "ln_positions": "swinv2",
    "use_glu": False,
    "use_bias": True,
    "use_cosine_attention": True,
    "scale_embedding": True,
    "is_encoder_decoder": False,
    "quantization_config": {},
}


@pytest.mark.parametrize("key", WRONG)
def test_another_variant_is_refused_by_name(key):
    with pytest.raises(ConfigError, match=repr(key)):
        find_format("dalle-mini", "generator").read_config(
            {**public("like mini"), key: WRONG[key]}, ()
        )


def test_what_the_format_cannot_say_is_refused(tmp_path):
    chosen = find_format("dalle-mini", "generator")
    node = {"kind": "generator", **chosen.read_config(public("like mini"))}
    for change, message in (
        ({"text_head": False, "scale_embedding": True}, "scale_embedding"),
        ({"backbone": {**node["backbone"], "position": "rope"}}, "position"),
        ({"encoder": {**node["encoder"], "post_norms": []}}, "encoder"),
        ({"code_rows": None, "start_code": None, "start": True}, "code_rows"),
    ):
        with pytest.raises(ConfigError, match=message):
            chosen.write_config(resolve("model", {**node, **change}))
    with pytest.raises(ConfigError, match="'image_length' = 12 is no square"):
        chosen.read_config({**public("like mini"), "image_length": 12})


# -- words -----------------------------------------------------------------------------------------

TEXTS = [
    "a comfy chair that looks like an avocado",
    "Don't PANIC: it's 42, isn't it?!",
    "  blanks   here and    there ",
    "naïve café, 日本語 and ½ of it",
    "state-of-the-art (v2.0); e.g. x=y+z... #1",
    "İstanbul, straße, K for Kelvin",
    "",
    "aaaaaaaaaaaaa bananananas",
    "supercalifragilisticexpialidocious 'quoted' \"double\"",
]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """A folder with vocab.json and merges.txt as BART's, learned from a little English."""
    from zoo.tokenizers.text import train_tokenizer

    folder = tmp_path_factory.mktemp("words")
    lines = [*TEXTS, *(["a chair like an avocado isn't state of the art, it's here and there"] * 5)]
    special = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
    learned = train_tokenizer(
        "byte-bpe", [t.lower() for t in lines], 420, special, prefix_space=True
    )
    learned.save(folder)
    spec = json.loads((folder / "tokenizer.json").read_text())
    out = tmp_path_factory.mktemp("bare")
    (out / "vocab_mini.json").write_text(json.dumps(spec["model"]["vocab"]))
    merges = [m if isinstance(m, str) else " ".join(m) for m in spec["model"]["merges"]]
    (out / "merges_mini.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    return out


def test_words_are_min_dalles(theirs, vocabulary):
    vocab = json.loads((vocabulary / "vocab_mini.json").read_text())
    merges = (vocabulary / "merges_mini.txt").read_text().split("\n")[1:-1]
    reference = theirs.text.TextTokenizer(vocab, merges)
    assert len(merges) > 100 and len(byte_alphabet()) == 256
    tokenizer = build(zoo.config("dalle-mini").tokenizer, folder=vocabulary)
    for text in TEXTS:
        found = tokenizer([text]).tokens[0].tolist()
        assert found == reference.tokenize(text), text
    long = "avocado " * 100  # theirs cuts the end's mark off; ours keeps it
    assert tokenizer([long], length=64).tokens[0].tolist()[-1] == vocab["</s>"]
