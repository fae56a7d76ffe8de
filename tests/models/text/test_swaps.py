"""Any part swaps in any family of text models, and trains; loading into a swapped model says what
fits."""

# b batch, n tokens

import pytest
import torch
from torch.nn import functional as F

import zoo
from tests.weights.formats.decoders import tokens
from zoo.errors import ConfigError, WeightsError

STACK = {
    "depth": 2,
    "width": 32,
    "length": 24,
    "attention": {"heads": 4, "dropout": 0.0},
    "feedforward": {"hidden": 48, "dropout": 0.0},
    "dropout": 0.0,
}
CROSS = {"cross_attention": {"heads": 4, "dropout": 0.0}}
ONE = {"vocabulary": 61, "backbone": STACK}
PAIR = {"vocabulary": 61, "encoder": STACK, "decoder": {**STACK, **CROSS}}
# a node of each family; key heads and widths that 32 channels allow
FAMILIES = {
    "gpt1": {},
    "gpt2": {},
    "gpt3-small": {"backbone.attention.head_dim": 8},
    "llama-2-7b": {},
    "llama-3.2-1b": {"backbone.attention.kv_heads": 2},
    "mistral-7b": {"backbone.attention.kv_heads": 2, "backbone.attention.window": 5},
    "qwen2-0.5b": {"backbone.attention.kv_heads": 2},
    "qwen3-0.6b": {"backbone.attention.kv_heads": 2, "backbone.attention.head_dim": 12},
    "bloom-560m": {},
    "mpt-7b": {},
    "santacoder": {},
    "falcon-7b": {},
    "falcon-40b": {"backbone.attention.kv_heads": 2},
    "falcon-rw-1b": {"backbone.attention.kv_heads": 4},
    "prefix-lm-small": {},
    "bert-base-uncased": {"next_sentence": False, "pooler": False},
    "roberta-base": {},
    "all-minilm-l6-v2": {"task": "fill", "pooler": False},
    "transformer-base": {},
    "transformer-base-preln": {},
    "wmt19-de-en-6-6-base": {"target_vocabulary": None},
    "opus-mt-en-de": {},
    "t5-small": {},
    "t5-v1.1-small": {},
    "ul2": {"encoder.attention.head_dim": 12, "decoder.attention.head_dim": 12},
    "umt5-small": {},
    "xlnet-base-cased": {},
}
# what is laid over every stack of a model, by the group of parts
PARTS = {
    "position": [
        *("none", "learned", "sinusoidal", "rope", "alibi", "t5", "shaw", "transformer-xl"),
        "[learned, alibi]",
        "rope; position.scaling=yarn; position.factor=4",
        "rope; position.scaling=dynamic; position.factor=2",
        "t5; position.per_layer=true",
        "shaw; position.values=false",
    ],
    "norm": ["layer", "rms", "scale"],
    "feedforward": ["mlp", "gated", "glu", "bilinear", "reglu", "geglu", "swiglu"],
    "feedforward.activation": ["relu_squared"],
    "feedforward.inner_norm": ["layer"],
    "attention.kv_heads": ["1"],
    "attention.head_dim": ["6"],
    "attention.scale": ["1.0"],
    "attention.clip": ["1.0"],
    "attention.qk_norm": ["rms"],
    "attention.window": ["4"],
    "attention.kernel": ["plain"],
    "cross_attention.kv_heads": ["1"],
    "cross_attention.head_dim": ["6"],
    "cross_attention.qk_norm": ["rms"],
    "cross_attention.kernel": ["plain"],
    "placement": ["pre", *(f"{place}; parallel_norms=1" for place in ("post", "none")), "both"],
    "embedding_norm": ["true"],
    "final_norm": ["true"],
    "parallel": ["true; placement=pre", "true; parallel_norms=2; placement=pre"],
    "layer_scale": ["0.1"],
    "checkpoint": ["true"],
    "layers": ["[{}, {norm: rms, feedforward: swiglu}]"],
}
# what is set in the model itself
KEYS = ["unit_embedding=true", "embedding_width=8", "tied=false", "head_bias=true"]
SWAPS = [f"{part}={value}" for part, values in PARTS.items() for value in values] + KEYS
# what has no place in a family, and what the refusal says
REFUSED = {
    ("xlnet-base-cased", "position=shaw"): r"position\.values=false",
    ("falcon-40b", "placement=post"): "parallel_norms: two norms stand before the branches",
    ("falcon-40b", "placement=none"): "parallel_norms: two norms stand before the branches",
    ("gpt2", "position=learned-grid"): "learned-grid",
    ("bert-base-uncased", "position=rope-grid"): "rope-grid",
    ("t5-small", "attention.pattern=row"): "attention.pattern",
    ("gpt2", "attention.kv_heads=3"): "kv_heads: 4 query heads cannot share 3 key heads",
    ("xlnet-base-cased", "attention.heads=5"): "does not divide into 5 heads",
    ("roberta-base", "feedforward.activation=gleu"): "gelu",
    ("ul2", "position=[shaw, transformer-xl]"): "both have parameters in every layer",
}


def stacks(family):
    config = zoo.config(family)
    return ("encoder", "decoder") if config.zoo_kind == "seq2seq" else ("backbone",)


def overrides(family, swap):
    """Returns the words for a swap in every stack that has the part."""
    if swap in KEYS:
        return [swap]
    reading = ("decoder",) if swap.startswith("cross_attention") else stacks(family)
    return [f"{stack}.{word}" for stack in reading for word in swap.split("; ")]


def tiny(family, *words):
    base = PAIR if len(stacks(family)) == 2 else ONE
    return zoo.create(family, base, FAMILIES[family], *words, seed=0)


def loss_of(model):
    """Returns what the family learns from: the next token, each token, a translation, an order."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(5, 61, (2, 16), generator=generator)
    answers = text
    kind = model.config.zoo_kind
    if kind == "causal-lm":
        logits, answers = model(text[:, :-1]).logits, text[:, 1:]
    elif kind == "seq2seq":
        source = torch.randint(5, 61, (2, 9), generator=generator)
        logits, answers = model(source, text[:, :-1]).logits, text[:, 1:]
    elif kind == "permutation-lm":
        rank = torch.stack([torch.randperm(16, generator=generator) for _ in text])
        order = rank[:, None, :] >= rank[:, :, None]
        types = (text > 30).long()
        logits = model(text, order=order, targets=torch.eye(16).expand(2, 16, 16), types=types)
        logits = logits.logits
    else:
        logits = model(text).logits
    return F.cross_entropy(logits.flatten(0, 1), answers.flatten())


WALK = [
    (family, swap)
    for family in FAMILIES
    for swap in SWAPS
    if (family, swap) not in REFUSED
    and not (swap.startswith("cross_attention") and len(stacks(family)) == 1)
]


@pytest.mark.parametrize(("family", "swap"), WALK)
def test_every_part_of_every_family_swaps_and_trains(family, swap):
    """A step lowers the loss and moves every weight."""
    model = tiny(family, *overrides(family, swap)).train()
    before = loss_of(model)
    assert before.isfinite()
    before.backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing
    length = sum(p.grad.square().sum() for p in model.parameters()).sqrt()
    assert any(loss_after(model, size / length) < before for size in (0.01, 0.03, 0.003))


@torch.no_grad()
def loss_after(model, size):
    """Returns the loss after a step against the gradient, which is taken back."""
    kept = [p.clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter -= size * parameter.grad
    loss = loss_of(model)
    for parameter, value in zip(model.parameters(), kept, strict=True):
        parameter.copy_(value)
    return loss


@pytest.mark.parametrize(("family", "swap"), REFUSED)
def test_what_has_no_place_is_refused_in_one_sentence(family, swap):
    with pytest.raises(ConfigError, match=REFUSED[family, swap]) as error:
        loss_of(tiny(family, *overrides(family, swap)))
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


def test_a_wrong_part_is_refused_with_the_nearest_name():
    with pytest.raises(zoo.errors.UnknownName, match=r"backbone\.norm: .*'rmss'.*'rms'"):
        zoo.create("gpt2", "backbone.norm=rmss")
    with pytest.raises(ConfigError, match=r"backbone\.attention\.kvheads.*kv_heads"):
        zoo.create("gpt2", "backbone.attention.kvheads=1")


# -- loading into a swapped model ------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("swap", ["feedforward=mlp", "feedforward=geglu", "norm=scale"])
def test_partial_loading_lists_what_has_no_place_and_what_is_new(family, swap, tmp_path):
    """Whatever the family: names and shapes that two models share are loaded, and nothing else."""
    whole = tiny(family)
    zoo.save(whole, tmp_path)
    kept = whole.state_dict()
    wanted = tiny(family, *overrides(family, swap)).state_dict()
    same = {key for key in wanted if key in kept and kept[key].shape == wanted[key].shape}
    name, words = f"dir:{tmp_path}", overrides(family, swap)
    if kept.keys() != wanted.keys():
        with pytest.raises(WeightsError, match="partial=True"):
            zoo.load(name, *words)
    model = zoo.load(name, *words, partial=True, seed=0)
    report, found = model.load_report, model.state_dict()
    assert set(report.loaded) == same and set(report.new) == wanted.keys() - same
    assert set(report.unused) == kept.keys() - wanted.keys()
    assert all(torch.equal(found[key], kept[key]) for key in same)
    assert loss_of(model).isfinite()


# family, case, swap -> what the file has no place for, what is new, what has another shape
LOADS = [
    (
        "gpt_bigcode",
        "wide",
        "backbone.position=rope",
        {"backbone.positions.0.weight"},
        set(),
    ),
    (
        "gpt2",
        "odd heads",
        "backbone.norm=rms",
        {
            f"backbone.{part}.bias"
            for part in (
                "final_norm",
                *(f"layers.{i}.{n}_norm" for i in range(2) for n in ("attention", "feedforward")),
            )
        },
        set(),
    ),
    (
        "gpt2",
        "odd heads",
        "backbone.feedforward=swiglu",
        {f"backbone.layers.{i}.feedforward.up.{e}" for i in range(2) for e in ("weight", "bias")},
        {
            f"backbone.layers.{i}.feedforward.gate_up.{e}"
            for i in range(2)
            for e in ("weight", "bias")
        },
    ),
    (
        "gpt2",
        "odd heads",
        "backbone.attention.kv_heads=1",
        set(),
        {f"backbone.layers.{i}.attention.qkv.{e}" for i in range(2) for e in ("weight", "bias")},
    ),
    (
        "llama",
        "odd heads",
        "backbone.feedforward={kind: mlp, bias: false, hidden: 56}",
        {f"backbone.layers.{i}.feedforward.gate_up.weight" for i in range(2)},
        {f"backbone.layers.{i}.feedforward.up.weight" for i in range(2)},
    ),
    (
        "bloom",
        "odd heads",
        "backbone.embedding_norm=false",
        {"backbone.embedding_norm.weight", "backbone.embedding_norm.bias"},
        set(),
    ),
]


@pytest.mark.parametrize(("family", "odd", "swap", "homeless", "new"), LOADS)
def test_weights_of_a_swapped_model(family, odd, swap, homeless, new, folder):
    name = f"dir:{folder(family, odd)}"
    with pytest.raises(WeightsError, match="partial=True") as error:
        zoo.load(name, swap)
    for part in sorted(homeless | new)[:5]:
        assert part in str(error.value)
    model = zoo.load(name, swap, partial=True, seed=3)
    report = model.load_report
    assert set(report.unused) == homeless
    assert set(report.new) == new
    whole = zoo.load(name).state_dict()
    kept = model.state_dict()
    assert set(report.loaded) == kept.keys() - new
    for key in report.loaded:
        assert torch.equal(kept[key], whole[key])
    again = zoo.load(name, swap, partial=True, seed=3).state_dict()
    assert all(torch.equal(again[key], kept[key]) for key in kept)
    logits = model(tokens()).logits
    assert logits.isfinite().all()
