"""Any part swaps in any decoder family, and trains; loading into a swapped model says what fits."""

import pytest
import torch
from torch.nn import functional as F

import zoo
from tests.weights.formats.decoders import tokens
from zoo.errors import ConfigError, WeightsError

TINY = {
    "vocabulary": 61,
    "backbone.depth": 2,
    "backbone.width": 32,
    "backbone.length": 24,
    "backbone.attention.heads": 4,
    "backbone.feedforward.hidden": 48,
    "backbone.dropout": 0.0,
    "backbone.attention.dropout": 0.0,
}
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
}
SWAPS = [
    *(
        f"backbone.position={name}"
        for name in ("none", "learned", "sinusoidal", "rope", "alibi", "t5", "shaw")
    ),
    "backbone.position=transformer-xl",
    "backbone.position=[learned, alibi]",
    "backbone.position=rope; backbone.position.scaling=yarn; backbone.position.factor=4",
    "backbone.position=rope; backbone.position.scaling=dynamic; backbone.position.factor=2",
    *(f"backbone.norm={name}" for name in ("layer", "rms", "scale")),
    *(
        f"backbone.feedforward={name}"
        for name in ("mlp", "gated", "glu", "bilinear", "reglu", "geglu", "swiglu")
    ),
    "backbone.feedforward.activation=relu_squared",
    "backbone.attention.kv_heads=1",
    "backbone.attention.head_dim=6",
    "backbone.attention.scale=1.0",
    "backbone.attention.clip=1.0",
    "backbone.attention.qk_norm=rms",
    "backbone.attention.window=4",
    "backbone.attention.kernel=plain",
    "backbone.placement=post; backbone.parallel_norms=1",
    "backbone.placement=both",
    "backbone.placement=none; backbone.parallel_norms=1",
    "backbone.embedding_norm=true",
    "backbone.final_norm=true",
    "backbone.parallel=true",
    "backbone.parallel=true; backbone.parallel_norms=2; backbone.placement=pre",
    "backbone.layer_scale=0.1",
    "backbone.checkpoint=true",
    "backbone.layers=[{}, {norm: rms, feedforward: swiglu}]",
    "unit_embedding=true",
    "embedding_width=8",
    "tied=false",
    "head_bias=true",
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("swap", SWAPS)
def test_every_part_of_every_family_swaps_and_trains(family, swap):
    model = zoo.create(family, TINY, FAMILIES[family], *swap.split("; "), seed=0).train()
    text = torch.randint(0, 61, (2, 16), generator=torch.Generator().manual_seed(0))

    def loss():
        logits = model(text[:, :-1]).logits
        return F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())

    before = loss()
    before.backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing
    length = sum(p.grad.square().sum() for p in model.parameters()).sqrt()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.05 * parameter.grad / length
    after = loss()
    assert after < before


def test_a_wrong_part_is_refused_with_the_nearest_name():
    with pytest.raises(zoo.errors.UnknownName, match=r"backbone\.norm: .*'rmss'.*'rms'"):
        zoo.create("gpt2", "backbone.norm=rmss")
    with pytest.raises(ConfigError, match=r"backbone\.attention\.kvheads.*kv_heads"):
        zoo.create("gpt2", "backbone.attention.kvheads=1")


# -- loading into a swapped model ------------------------------------------------------------------

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
