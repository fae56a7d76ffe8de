"""LlamaGen's transformer against its equations, written out here (its code is in no package): an
RMS-normed, SwiGLU'd decoder whose queries and keys turn as complex numbers, a half of them with the
row and a half with the column; what stands before the codes is multiplied by nothing."""

# b pictures, p tokens before the codes, n codes, h heads, c channels of a head

import json
import math

import pytest
import torch
from torch.nn import functional as F

import zoo
from tests.weights.formats.parity import TOLERANCE, distance
from zoo.errors import ConfigError, DataError, WeightsError
from zoo.models.base import build_empty, initialise
from zoo.models.generator.sample import UNKNOWN, sample
from zoo.models.generator.schema import draw_options
from zoo.registry import resolve
from zoo.weights.formats import find_format, format_for
from zoo.weights.formats.llamagen import hidden_width
from zoo.weights.load import load_into

C2I = {"model_type": "c2i", "dim": 32, "n_layer": 2, "n_head": 2, "vocab_size": 64,
       "block_size": 16, "num_classes": 5}  # fmt: skip
T2I = {**C2I, "model_type": "t2i", "cls_token_num": 7, "caption_dim": 12}
ODD = {
    "classes": C2I,
    "classes, grouped keys, a small multiple": {
        **C2I, "dim": 48, "n_head": 6, "n_kv_head": 2, "multiple_of": 8, "n_layer": 3},
    "classes, another base and eps": {
        **C2I, "rope_base": 100, "norm_eps": 1e-2, "block_size": 25, "ffn_dim_multiplier": 1.3},
    "texts": T2I,
    "texts, one head, wider features": {**T2I, "n_head": 1, "caption_dim": 40, "block_size": 9},
}  # fmt: skip


def state_of(keys, seed=0):
    """Returns random tensors under their names."""
    generator = torch.Generator().manual_seed(seed)
    width, heads = keys["dim"], keys["n_head"]
    groups, c = keys.get("n_kv_head", heads), width // heads
    hidden = hidden_width(width, keys.get("multiple_of", 256), keys.get("ffn_dim_multiplier"))
    shapes = {"tok_embeddings.weight": (keys["vocab_size"], width), "norm.weight": (width,),
              "output.weight": (keys["vocab_size"], width)}  # fmt: skip
    for i in range(keys["n_layer"]):
        shapes |= {
            f"layers.{i}.attention.wqkv.weight": ((heads + 2 * groups) * c, width),
            f"layers.{i}.attention.wo.weight": (width, width),
            f"layers.{i}.feed_forward.w1.weight": (hidden, width),
            f"layers.{i}.feed_forward.w3.weight": (hidden, width),
            f"layers.{i}.feed_forward.w2.weight": (width, hidden),
            f"layers.{i}.attention_norm.weight": (width,),
            f"layers.{i}.ffn_norm.weight": (width,),
        }
    if keys["model_type"] == "c2i":
        shapes["cls_embedding.embedding_table.weight"] = (keys["num_classes"] + 1, width)
    else:
        captions = keys["caption_dim"]
        shapes["cls_embedding.cap_proj.fc1.weight"] = (width, captions)
        shapes["cls_embedding.cap_proj.fc2.weight"] = (width, width)
        shapes["cls_embedding.uncond_embedding"] = (keys["cls_token_num"], captions)
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        norm = "norm" in name
        state[name] = 1 + 0.3 * noise if norm else noise * 1.5 / shape[-1] ** 0.5
        if "embed" in name:
            state[name] = noise
    return state


def their_scores(keys, state, asked, codes, seen=None):
    """Returns the scores of every code (b n v): equations of the paper's section 3 and of Llama."""
    if keys["model_type"] == "c2i":
        before = state["cls_embedding.embedding_table.weight"][asked][:, None]
    else:
        project = "cls_embedding.cap_proj."
        inner = F.gelu(asked @ state[f"{project}fc1.weight"].T, approximate="tanh")
        before = inner @ state[f"{project}fc2.weight"].T
    x = torch.cat([before, state["tok_embeddings.weight"][codes[:, :-1]]], dim=1)
    prefix, count, heads = before.shape[1], x.shape[1], keys["n_head"]
    groups, c = keys.get("n_kv_head", heads), keys["dim"] // heads
    side, quarter = math.isqrt(keys["block_size"]), c // 4
    places = torch.arange(side**2)
    frequency = keys.get("rope_base", 10000) ** -(torch.arange(quarter) / quarter)
    angle = torch.cat(
        [(places // side)[:, None] * frequency, (places % side)[:, None] * frequency], dim=1
    )
    turns = torch.cat([torch.zeros(prefix, c // 2), torch.ones(side**2, c // 2)]).to(torch.cfloat)
    turns[prefix:] = torch.polar(torch.ones_like(angle), angle)
    allowed = torch.ones(count, count).tril().bool()[None]
    if seen is not None:  # and every place sees itself, as theirs does
        real = torch.cat([seen, torch.ones(len(seen), count - prefix, dtype=torch.bool)], dim=1)
        allowed = (allowed & real[:, None]) | torch.eye(count).bool()

    def norm(x, weight):
        eps = keys.get("norm_eps", 1e-5)
        return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight

    def turned(x):  # b n h c, neighbours are the parts of one complex number
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
        return torch.view_as_real(pairs * turns[:count, None]).flatten(-2)

    for i in range(keys["n_layer"]):
        layer = {k.split(".", 2)[2]: v for k, v in state.items() if k.startswith(f"layers.{i}.")}
        qkv = norm(x, layer["attention_norm.weight"]) @ layer["attention.wqkv.weight"].T
        q, k, v = qkv.split([heads * c, groups * c, groups * c], dim=-1)
        q = turned(q.unflatten(-1, (heads, c)))
        k = turned(k.unflatten(-1, (groups, c))).repeat_interleave(heads // groups, dim=2)
        v = v.unflatten(-1, (groups, c)).repeat_interleave(heads // groups, dim=2)
        scores = torch.einsum("bqhc,bkhc->bhqk", q, k) / c**0.5
        weights = scores.masked_fill(~allowed[:, None], -math.inf).softmax(-1)
        mixed = torch.einsum("bhqk,bkhc->bqhc", weights, v).flatten(2)
        x = x + mixed @ layer["attention.wo.weight"].T
        y = norm(x, layer["ffn_norm.weight"])
        gate = F.silu(y @ layer["feed_forward.w1.weight"].T)
        x = x + (gate * (y @ layer["feed_forward.w3.weight"].T)) @ layer["feed_forward.w2.weight"].T
    return (norm(x, state["norm.weight"]) @ state["output.weight"].T)[:, prefix - 1 :]


@pytest.fixture(params=ODD)
def odd(request):
    return request.param


@pytest.fixture
def pair(odd):
    """Returns (keys, their tensors, our model); the way back is checked."""
    keys = ODD[odd]
    state = state_of(keys)
    chosen = format_for(keys)
    config = resolve("model", {"kind": "generator", **chosen.read_config(keys)})
    model = build_empty(config)
    mapped = chosen.weight_map(config).load(state)
    mapped.check()
    load_into(model, mapped)
    back = chosen.weight_map(config).export(model.state_dict())
    assert back.keys() == state.keys() and all(torch.equal(back[k], state[k]) for k in state)
    written = json.loads(json.dumps(chosen.write_config(config)))
    again = resolve("model", {"kind": "generator", **chosen.read_config(written)})
    assert chosen.write_config(again) == written
    assert again.backbone.feedforward == config.backbone.feedforward
    return keys, state, model.eval()


def asking(keys, batch=2):
    """Returns (what theirs is asked, our arguments, which vectors are seen): texts of 4 and of 7
    vectors, as T5 gives them, filled up behind."""
    if keys["model_type"] == "c2i":
        labels = torch.tensor([3, 0])
        return labels, {"labels": labels}, None
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(batch, 7, keys["caption_dim"], generator=generator)
    mask = torch.arange(7) < torch.tensor([4, 7])[:, None]
    seen = mask.flip(1)  # theirs stand right before the codes
    moved = torch.stack([torch.cat([f[m:], f[:m]]) for f, m in zip(features, mask.sum(1))])
    return moved, {"features": features, "features_mask": mask}, seen


@torch.no_grad()
def test_scores(pair):
    keys, state, model = pair
    codes = torch.randint(0, 64, (2, keys["block_size"]))
    theirs, ours, seen = asking(keys)
    expected = their_scores(keys, state, theirs, codes, seen)
    assert distance(model(codes, **ours).logits, expected) <= TOLERANCE
    if seen is not None:  # a batch without room is another one
        short = {"features": ours["features"][:1, :4]}
        assert distance(model(codes[:1], **short).logits, expected[:1]) <= TOLERANCE
        with pytest.raises(DataError, match="8 vectors are more than the 7"):
            model.prompt(1, features=torch.zeros(1, 8, keys["caption_dim"]))


@torch.no_grad()
def test_guided_codes_step_by_step(pair):
    """Guidance of 3 between what is asked and their class (or vectors) of nothing, code by code."""
    keys, state, model = pair
    theirs, ours, seen = asking(keys)
    if keys["model_type"] == "c2i":
        none, nothing = torch.full_like(theirs, keys["num_classes"]), model.prompt(2)
    else:  # of nothing as many vectors are seen as of the text
        none = state["cls_embedding.uncond_embedding"].expand(2, -1, -1)
        nothing = model.prompt(2, features_mask=ours["features_mask"])
    codes = torch.zeros(2, keys["block_size"], dtype=torch.long)
    for place in range(keys["block_size"]):
        full = their_scores(keys, state, theirs, codes, seen)[:, place]
        free = their_scores(keys, state, none, codes, seen)[:, place]
        codes[:, place] = (free + (full - free) * 3).argmax(-1)
    for together in (True, False):
        wanted = draw_options(True, {"guidance": 3.0, "temperature": 0, "together": together})
        known = torch.full_like(codes, UNKNOWN)
        *_, found = sample(model, known, model.prompt(2, **ours), nothing, wanted)
        assert torch.equal(found, codes)
    assert len(set(codes.flatten().tolist())) > 4
    given = {"guidance": 3.0, "temperature": 0.0}
    if keys["model_type"] == "c2i":
        assert torch.equal(model.draw_codes(theirs.tolist(), **given), codes)
    else:  # as a loaded model is asked, text after text
        one = {name: tensor[:1] for name, tensor in ours.items()}
        assert torch.equal(model.draw_codes([None], features=one, **given), codes[:1])


NODES = {  # name -> depth, heads, width, millions of parameters as the authors count them
    "llamagen-b": (12, 12, 768, 111),
    "llamagen-l": (24, 16, 1024, 343),
    "llamagen-xl": (36, 20, 1280, 775),
    "llamagen-xxl": (48, 24, 1536, 1411),
    "llamagen-3b": (24, 32, 3200, 3101),
}


def test_the_node_of_texts_reads_t5():
    typed, chosen = zoo.config("llamagen-xl-t2i"), find_format("llamagen", "generator")
    keys = {"model_type": "t2i", "dim": 1280, "n_layer": 36, "n_head": 20, "cls_token_num": 120}
    config = resolve("model", {"kind": "generator", **chosen.read_config(keys)})
    assert chosen.write_config(typed) == chosen.write_config(config)
    assert set(typed.weights) == {"256", "512"} and typed.features == 2048


@pytest.mark.parametrize("name", NODES)
def test_nodes_are_the_papers_sizes(name):
    depth, heads, width, millions = NODES[name]
    typed, chosen = zoo.config(name), find_format("llamagen", "generator")
    keys = {"model_type": "c2i", "dim": width, "n_layer": depth, "n_head": heads}
    keys["block_size"] = math.prod(typed.shape)
    config = resolve("model", {"kind": "generator", **chosen.read_config(keys)})
    assert chosen.write_config(typed) == chosen.write_config(config)
    model = zoo.create(name, device="meta")
    own = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("visual."))
    assert own / 1e6 == pytest.approx(millions, rel=0.01)
    assert all(tag.license == "mit" for tag in typed.weights.values())


WRONG = {
    "'model_type' = 'x2i' is neither": {"model_type": "x2i"},
    "'block_size' = 12 is no square": {"block_size": 12},
    "'class_dropout_prob' = 0 leaves no class": {"class_dropout_prob": 0.0},
    "'cls_token_num' = 4: a class is one token": {"cls_token_num": 4},
    "'ffn_dropout_p' = 0.7 is not supported": {"ffn_dropout_p": 0.7},
    "'qk_norm' is not known": {"qk_norm": True},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_not_theirs_is_refused(message):
    with pytest.raises(ConfigError, match=message):
        find_format("llamagen", "generator").read_config({**C2I, **WRONG[message]})


def test_what_the_format_cannot_say_is_refused():
    chosen = find_format("llamagen", "generator")
    node = {"kind": "generator", **chosen.read_config(C2I)}
    still = {"kind": "rope-grid", "theta": 10000.0}
    for change, message in (
        ({"position": "learned"}, "position"),
        ({"position": still}, "before"),
        ({"attention": {**node["backbone"]["attention"], "qkv_bias": True}}, "qkv_bias"),
        ({"feedforward": {"kind": "gated", "hidden": 20, "bias": False}}, "hidden"),
    ):
        with pytest.raises(ConfigError, match=message):
            changed = {**node, "backbone": {**node["backbone"], **change}}
            chosen.write_config(resolve("model", changed))


@torch.no_grad()
def test_a_tokenizer_that_lies_elsewhere_is_left_there(tmp_path):
    """The format holds no pictures' tokenizer: what `bases` name is not written, and not missed."""
    node = find_format("llamagen", "generator").read_config(C2I)
    del node["codes"], node["grid"]
    bases = {"visual": "fsq-digits"}
    config = resolve("model", {"kind": "generator", **node, "visual": "fsq-digits", "bases": bases})
    model = initialise(build_empty(config), 0).eval()
    zoo.save(model, tmp_path, format="llamagen")
    again = zoo.load(f"dir:{tmp_path}")
    assert again.config.visual is None and again.config.shape == (8, 8)
    codes = torch.randint(0, 128, (1, 64))
    assert torch.equal(again(codes).logits, model(codes).logits)
    model.config.bases = {}
    with pytest.raises(WeightsError, match="no place for"):
        zoo.save(model, tmp_path / "lost", format="llamagen")
