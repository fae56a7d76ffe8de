"""ruDALL-E against the `rudalle` package: masks bit for bit, scores of random weights, codes."""

# b pictures, m tokens of the text, n codes

import importlib
import importlib.util
import json
import sys
import types

import pytest
import torch

import zoo
from tests.weights.formats.parity import TOLERANCE, distance, random_weights
from zoo.errors import ConfigError
from zoo.models.base import build_empty
from zoo.models.generator.sample import UNKNOWN, sample
from zoo.models.generator.schema import draw_options
from zoo.nn.grid import GridRule
from zoo.registry import resolve
from zoo.weights.formats import find_format, format_for
from zoo.weights.load import load_into

USUAL = {
    "num_layers": 5,
    "vocab_size": 58,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "embedding_dropout_prob": 0.0,
    "attention_dropout_prob": 0.0,
    "output_dropout_prob": 0.0,
    "text_seq_length": 8,
    "image_tokens_per_dim": 4,
    "image_vocab_size": 64,
    "cogview_sandwich_layernorm": True,
    "cogview_pb_relax": True,
}
ODD = {
    "like Malevich": {},
    "no sandwich, plain scores": {"cogview_sandwich_layernorm": False, "cogview_pb_relax": False},
    "a square larger than the grid's half": {"image_tokens_per_dim": 7, "num_layers": 4},
    "a column at the end": {"num_layers": 6, "text_seq_length": 3, "num_attention_heads": 4},
    "floats as masks, one layer": {"num_layers": 1, "is_bool_mask": False, "hidden_size": 48},
}


@pytest.fixture(scope="module")
def theirs():
    """rudalle's classes without its packages' __init__, which want downloads and old versions."""
    spec = importlib.util.find_spec("rudalle")
    if spec is None:
        pytest.skip("rudalle (tools/references.txt) is not installed")
    before = dict(sys.modules)
    (root,) = spec.submodule_search_locations
    for name, path in (("rudalle", root), ("rudalle.dalle", f"{root}/dalle")):
        package = types.ModuleType(name)
        package.__path__ = [path]
        sys.modules[name] = package
    yield types.SimpleNamespace(
        model=importlib.import_module("rudalle.dalle.model"),
        masks=importlib.import_module("rudalle.dalle.image_attention"),
    )
    for name in set(sys.modules) - set(before):
        if name.split(".")[0] == "rudalle":
            del sys.modules[name]


@pytest.fixture(params=ODD)
def odd(request):
    return request.param


@pytest.fixture
def pair(odd, theirs):
    """Returns (their model, ours), of the same random weights; the way back is checked."""
    keys = {**USUAL, **ODD[odd]}
    model = random_weights(theirs.model.DalleModel("cpu", **keys))
    with torch.no_grad():  # so that what is chosen changes from place to place
        model.to_logits[1].bias.mul_(0.1)
        model.image_embeddings.weight.mul_(6)
    state = model.state_dict()
    chosen = format_for(keys)
    config = resolve("model", {"kind": "generator", **chosen.read_config(keys)})
    ours = build_empty(config)
    mapped = chosen.weight_map(config).load(state)
    mapped.check()
    load_into(ours, mapped)
    back = chosen.weight_map(config).export(ours.state_dict())
    assert set(state) - set(back) == {f"transformer.{n}_mask" for n in ("row", "col", "conv")}
    spare = back["text_pos_embeddings.weight"][-1]  # a row that v3 never reads
    assert not spare.any()
    spare.copy_(state["text_pos_embeddings.weight"][-1])
    assert all(torch.equal(back[name], state[name]) for name in back)
    written = json.loads(json.dumps(chosen.write_config(config)))
    assert resolve("model", {"kind": "generator", **chosen.read_config(written)}) == config
    return model, ours.eval()


def texts(keys, seed=0):
    """Returns tokens (2 m) as their tokenizer gives them, zeros where there is none."""
    generator = torch.Generator().manual_seed(seed)
    length, words = keys["text_seq_length"], keys["vocab_size"] - keys["text_seq_length"]
    text = torch.randint(4, words, (2, length), generator=generator)
    text[:, 0] = 2
    text[1, -2:] = 0
    return text


@pytest.mark.parametrize("text, side", [(8, 4), (3, 7), (0, 12), (16, 11)])
def test_masks_are_bit_equal(theirs, text, side):
    """The one-off proof of before, kept: rows, columns and the square, under the causal mask."""
    count = text + side**2
    causal = torch.ones(count, count).tril().bool()
    for ours, make in (("row", "row"), ("column", "col"), ("convolution", "conv")):
        rule = GridRule(ours, 11, (side, side), text)
        found = causal & rule.matrix(torch.device("cpu"))
        expected = getattr(theirs.masks, f"get_{make}_mask")(text, side, is_bool_mask=True)
        assert torch.equal(found, expected), ours
    assert not torch.equal(expected, causal) or side < 7


def test_layers_come_in_their_order(pair):
    model, ours = pair
    backbone = ours.config.backbone
    buffers = {"row": "row_mask", "column": "col_mask", "convolution": "conv_mask"}
    for index in range(backbone.depth):
        pattern = backbone.block(index).attention.pattern
        mask = model.transformer._get_layer_mask(index)
        assert mask is getattr(model.transformer, buffers[pattern])


@torch.no_grad()
def test_scores(odd, pair):
    model, ours = pair
    keys = {**USUAL, **ODD[odd]}
    text, count = texts(keys), keys["image_tokens_per_dim"] ** 2
    codes = torch.randint(0, keys["image_vocab_size"], (2, count))
    total = keys["text_seq_length"] + count
    mask = torch.ones(2, 1, total, total).tril()
    expected, _ = model(torch.cat([text, codes], dim=1), mask)
    found = ours(codes, text=text, text_mask=text != 0)
    words, length = keys["vocab_size"], keys["text_seq_length"]
    assert distance(found.logits, expected[:, length - 1 : -1, words:]) <= TOLERANCE
    assert distance(found.text_logits, expected[:, : length - 1, :words]) <= TOLERANCE


@torch.no_grad()
def test_codes_step_by_step(odd, pair):
    """Their cached sampler's most probable codes are what ours draws at temperature 0."""
    model, ours = pair
    keys = {**USUAL, **ODD[odd]}
    text, count = texts(keys, seed=3), keys["image_tokens_per_dim"] ** 2
    total = keys["text_seq_length"] + count
    mask, out, cache, steps = torch.ones(2, 1, total, total).tril(), text, None, []
    for _ in range(count):
        logits, cache = model(out, mask, use_cache=True, cache=cache)
        steps.append(logits[:, -1:, keys["vocab_size"] :])
        out = torch.cat([out, steps[-1].argmax(-1)], dim=1)
    condition = ours.prompt(2, text=text, text_mask=text != 0)
    wanted = draw_options(True, {"temperature": 0.0, "guidance": 1.0})
    *_, found = sample(ours, torch.full((2, count), UNKNOWN), condition, None, wanted)
    assert torch.equal(found, out[:, -count:])
    assert distance(ours.score(found, condition).logits, torch.cat(steps, 1)) <= TOLERANCE


def test_nodes_are_their_models():
    shapes = {"rudalle-malevich": (24, 2048, 16), "rudalle-kandinsky": (64, 3840, 60)}
    shapes |= {"rudalle-surrealist": shapes["rudalle-malevich"]}
    for name, (depth, width, heads) in shapes.items():
        keys = {**USUAL, "num_layers": depth, "hidden_size": width, "num_attention_heads": heads}
        keys |= {"vocab_size": 16384 + 128, "text_seq_length": 128, "image_tokens_per_dim": 32}
        keys |= {f"{part}_dropout_prob": 0.1 for part in ("embedding", "attention", "output")}
        chosen = find_format("rudalle", "generator")
        translated = chosen.read_config({**keys, "image_vocab_size": 8192})
        config, typed = resolve("model", {"kind": "generator", **translated}), zoo.config(name)
        assert chosen.write_config(typed) == chosen.write_config(config)
        assert (typed.codebook, typed.shape) == (8192, (32, 32))
        assert all(tag.format == "rudalle" and tag.license for tag in typed.weights.values())


@pytest.mark.parametrize(
    "key, value", [("hf_version", "v2"), ("mlp_activation", "relu"), ("rotary", True)]
)
def test_another_variant_is_refused_by_name(key, value):
    with pytest.raises(ConfigError, match=key):
        find_format("rudalle", "generator").read_config({**USUAL, key: value})


def test_what_the_format_cannot_say_is_refused():
    chosen = find_format("rudalle", "generator")
    node = {"kind": "generator", **chosen.read_config(USUAL)}
    for change, message in (
        ({"grid": [4, 8]}, "holds square pictures"),
        ({"pad_rows": False}, "pad_rows"),
        ({"backbone": {**node["backbone"], "layers": []}}, "blocks"),
        ({"backbone": {**node["backbone"], "norm": "rms"}}, "norm"),
    ):
        with pytest.raises(ConfigError, match=message):
            chosen.write_config(resolve("model", {**node, **change}))
    with pytest.raises(ConfigError, match="pad_rows: needs text_pads, and a row for each place"):
        resolve("model", {**node, "vocabulary": 8})
