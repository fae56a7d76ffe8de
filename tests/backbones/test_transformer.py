"""The stack: what each axis of its config means, as a formula over the stack's own parts."""

import pytest
import torch

from zoo.errors import ConfigError
from zoo.models.base import initialise
from zoo.nn.attention import Context, Record
from zoo.nn.cache import DynamicCache
from zoo.nn.mask import Mask
from zoo.registry import build, resolve

B, N, WIDTH = 2, 6, 16
CAUSAL = Context(Mask(causal=True))


def make(seed=0, memory_width=None, **keys):
    base = {"kind": "transformer", "depth": 2, "width": WIDTH, "causal": True}
    keys = {"attention": {"heads": 4}, "feedforward": {"hidden": 20}, **base, **keys}
    stack = initialise(build(resolve("backbone", keys), memory_width=memory_width), seed)
    with torch.no_grad():  # norms must not be the identity
        for parameter in stack.parameters():
            parameter.mul_(1.5).add_(
                torch.linspace(-0.2, 0.2, parameter.numel()).view_as(parameter)
            )
    return stack.double().eval()


def data(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


X = data(B, N, WIDTH)


def pre(layer, x):
    x = x + layer.attention(layer.attention_norm(x), CAUSAL)
    return x + layer.feedforward(layer.feedforward_norm(x))


def post(layer, x):
    x = layer.attention_norm(x + layer.attention(x, CAUSAL))
    return layer.feedforward_norm(x + layer.feedforward(x))


def both(layer, x):
    x = x + layer.attention_post_norm(layer.attention(layer.attention_norm(x), CAUSAL))
    return x + layer.feedforward_post_norm(layer.feedforward(layer.feedforward_norm(x)))


def normformer(layer, x):
    """Shleifer et al. 2021: a norm after attention and one before the projection down."""
    x = x + layer.attention_post_norm(layer.attention(layer.attention_norm(x), CAUSAL))
    feedforward = layer.feedforward
    inner = torch.nn.functional.silu(feedforward.up(layer.feedforward_norm(x)))
    inner = feedforward.inner_norm(inner)
    return x + feedforward.down(inner)


def none(layer, x):
    x = x + layer.attention(x, CAUSAL)
    return x + layer.feedforward(x)


def parallel_one(layer, x):
    y = layer.attention_norm(x)
    return x + layer.attention(y, CAUSAL) + layer.feedforward(y)


def parallel_two(layer, x):
    attended = layer.attention(layer.attention_norm(x), CAUSAL)
    return x + attended + layer.feedforward(layer.feedforward_norm(x))


def parallel_post(layer, x):
    return layer.attention_norm(x + layer.attention(x, CAUSAL) + layer.feedforward(x))


def parallel_both(layer, x):
    y = layer.attention_norm(x)
    attended = layer.attention_post_norm(layer.attention(y, CAUSAL))
    return x + attended + layer.feedforward_post_norm(layer.feedforward(y))


def parallel_none(layer, x):
    return x + layer.attention(x, CAUSAL) + layer.feedforward(x)


def turned_round(layer, x):
    x = x + layer.feedforward(layer.feedforward_norm(x))
    return x + layer.attention(layer.attention_norm(x), CAUSAL)


def half_normed(layer, x):
    x = x + layer.attention(x, CAUSAL)
    return x + layer.feedforward(layer.feedforward_norm(x))


def raw_keys(layer, x):
    """Queries of the norm, keys and values of the stream."""
    normed, part = layer.attention_norm(x), layer.attention
    q, _, _ = (t.unflatten(-1, (4, -1)) for t in part.qkv(normed).chunk(3, -1))
    _, k, v = (t.unflatten(-1, (4, -1)) for t in part.qkv(x).chunk(3, -1))
    scores = torch.einsum("bqhc,bkhc->bhqk", q, k) / q.shape[-1] ** 0.5
    later = torch.ones(x.shape[1], x.shape[1]).triu(1).bool()
    mixed = torch.einsum("bhqk,bkhc->bqhc", scores.masked_fill(later, -torch.inf).softmax(-1), v)
    x = x + part.out(mixed.flatten(2))
    return x + layer.feedforward(layer.feedforward_norm(x))


def scaled(layer, x):
    y = layer.attention(layer.attention_norm(x), CAUSAL)
    x = x + y * layer.attention_scale.weight
    return x + layer.feedforward(layer.feedforward_norm(x)) * layer.feedforward_scale.weight


BLOCKS = {
    "pre": (pre, {}),
    "post": (post, {"placement": "post"}),
    "both": (both, {"placement": "both"}),
    "normformer": (normformer, {"placement": "both", "post_norms": ["attention"], "feedforward": {
        "hidden": 20, "activation": "silu", "inner_norm": "layer"}}),
    "none": (none, {"placement": "none"}),
    "parallel, one norm": (parallel_one, {"parallel": True}),
    "parallel, two norms": (parallel_two, {"parallel": True, "parallel_norms": 2}),
    "parallel, post": (parallel_post, {"parallel": True, "placement": "post"}),
    "parallel, both": (parallel_both, {"parallel": True, "placement": "both"}),
    "parallel, none": (parallel_none, {"parallel": True, "placement": "none"}),
    "order": (turned_round, {"order": ["feedforward", "attention"]}),
    "a norm before one of them": (half_normed, {"pre_norms": ["feedforward"]}),
    "raw keys": (raw_keys, {"raw_keys": True}),
    "layer scale": (scaled, {"layer_scale": 0.1}),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("final_norm", [True, False])
@pytest.mark.parametrize("embedding_norm", [True, False])
def test_block_is_the_formula(name, final_norm, embedding_norm):
    formula, keys = BLOCKS[name]
    stack = make(final_norm=final_norm, embedding_norm=embedding_norm, **keys)
    expected = stack.embedding_norm(X) if embedding_norm else X
    for layer in stack.layers:
        expected = formula(layer, expected)
    expected = stack.final_norm(expected) if final_norm else expected
    torch.testing.assert_close(stack(X), expected)


def test_no_parameter_is_without_use():
    for _, keys in BLOCKS.values():
        stack = make(embedding_norm=True, **keys)
        stack(X).square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in stack.parameters())


def test_cross_attention_reads_the_memory():
    stack = make(cross_attention={"name": "multihead", "heads": 2}, memory_width=10)
    memory = data(B, 5, 10, seed=2)
    context = Context(Mask(causal=True), memory=memory)
    expected = X
    for layer in stack.layers:
        y = layer.attention(layer.attention_norm(expected), context)
        expected = expected + y
        y = layer.cross_attention(layer.cross_attention_norm(expected), context)
        expected = expected + y
        expected = expected + layer.feedforward(layer.feedforward_norm(expected))
    torch.testing.assert_close(stack(X, memory=memory), stack.final_norm(expected))


def test_post_norms_name_sublayers():
    """Of an encoder-decoder's block too; what is not named has no norm after it."""
    cross = {"cross_attention": {"name": "multihead", "heads": 2}, "memory_width": WIDTH}
    for chosen in (["cross_attention"], ["attention", "cross_attention"], ["feedforward"], []):
        layer = make(placement="both", post_norms=chosen, **cross).layers[0]
        found = {n.removesuffix("_post_norm") for n in layer._modules if n.endswith("_post_norm")}
        assert found == set(chosen)
    memory = data(B, 5, WIDTH, seed=2)
    layer = make(placement="both", post_norms=["cross_attention"], **cross).layers[0]
    context = Context(Mask(causal=True), memory=memory)
    x = X + layer.attention(layer.attention_norm(X), context)
    read = layer.cross_attention(layer.cross_attention_norm(x), context)
    x = x + layer.cross_attention_post_norm(read)
    x = x + layer.feedforward(layer.feedforward_norm(x))
    torch.testing.assert_close(layer(X, context), x)


def test_torchs_encoder_layer_is_one_point():
    stack = make(
        depth=1, causal=False, placement="post", final_norm=False, feedforward={"hidden": 20}
    )
    torchs = torch.nn.TransformerEncoderLayer(
        WIDTH, 4, 20, 0.0, torch.nn.functional.gelu, batch_first=True
    ).double()
    ours = stack.layers[0]
    names = {
        "self_attn.in_proj_": ours.attention.qkv,
        "self_attn.out_proj.": ours.attention.out,
        "linear1.": ours.feedforward.up,
        "linear2.": ours.feedforward.down,
        "norm1.": ours.attention_norm,
        "norm2.": ours.feedforward_norm,
    }
    state = {p + k: v for p, m in names.items() for k, v in m.state_dict().items()}
    torchs.load_state_dict(state)
    real = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6]).bool()
    expected = torchs(X, src_key_padding_mask=~real)
    torch.testing.assert_close(stack(X, mask=Mask(padding=real))[real], expected[real])


def test_keys_that_differ_by_layer_are_cycled():
    stack = make(depth=5, layers=[{}, {"attention": {"window": 2}}, {"attention": {"scale": 0.3}}])
    assert [layer.attention.window for layer in stack.layers] == [None, 2, None, None, 2]
    assert [layer.attention.scale for layer in stack.layers] == [0.5, 0.5, 0.3, 0.5, 0.5]
    stack = make(depth=4, layers=[{}, {"norm": "rms", "feedforward": {"name": "swiglu"}}])
    kinds = [type(layer.attention_norm).__name__ for layer in stack.layers]
    assert kinds == ["LayerNorm", "RMSNorm"] * 2
    assert hasattr(stack.layers[1].feedforward, "gate_up")
    assert type(stack.final_norm).__name__ == "LayerNorm"


def test_a_wrong_key_of_a_layer_is_refused_by_its_place():
    with pytest.raises(ConfigError, match=r"layers.1.attention.windw.*window"):
        make(layers=[{}, {"attention": {"windw": 2}}])


def test_banded_layers_reach_as_far_as_their_windows():
    stack = make(depth=2, layers=[{"attention": {"window": 2}}])
    x = data(1, 8, WIDTH).requires_grad_()
    stack(x)[0, 7].sum().backward()
    reached = x.grad[0].abs().sum(-1) > 0
    assert reached.tolist() == [False] * 5 + [True] * 3  # two layers, one step back each


# -- positions, masks and caches -------------------------------------------------------------------

POSITIONS = {
    "none": "none",
    "learned": "learned",
    "sinusoidal": "sinusoidal",
    "rope": "rope",
    "partial rope": {"name": "rope", "fraction": 0.5},
    "alibi": "alibi",
    "t5": "t5",
    "t5 in every layer": {"name": "t5", "per_layer": True},
    "shaw": {"name": "shaw", "distance": 3},
    "transformer-xl": "transformer-xl",
    "two": ["learned", "rope"],
    "three": ["sinusoidal", "rope", "alibi"],
}


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("kernel", ["sdpa", "plain"])
def test_padding_on_either_side_changes_nothing(name, kernel):
    attention = {"heads": 4, "kv_heads": 2, "kernel": kernel}
    stack = make(position=POSITIONS[name], length=12, attention=attention)
    alone = stack(X[:1])
    for start in (0, 1, 3):
        padded = torch.cat([data(1, start, WIDTH, seed=3), X[:1], data(1, 3 - start, WIDTH)], 1)
        other = torch.cat([X[1:], data(1, 3, WIDTH, seed=4)], 1)
        real = torch.zeros(2, N + 3, dtype=torch.bool)
        real[0, start : start + N], real[1] = True, True
        found = stack(torch.cat([padded, other]), mask=Mask(padding=real))
        torch.testing.assert_close(found[:1, start : start + N], alone, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("side", ["left", "right", "none"])
def test_a_cache_changes_nothing(name, side):
    stack = make(position=POSITIONS[name], length=12, attention={"heads": 4, "window": 5})
    real = torch.ones(B, N, dtype=torch.bool)
    if side == "left":
        real[0, :2] = False
    if side == "right":
        real[0, -2:] = False
    mask = None if side == "none" else Mask(padding=real)
    whole, cache, start, parts = stack(X, mask=mask), DynamicCache(), 0, []
    for part in X.split([3, 1, 1, 1], 1):
        start += part.shape[1]
        seen = None if mask is None else Mask(padding=real[:, :start])
        parts.append(stack(part, mask=seen, cache=cache))
    found = torch.cat(parts, 1)
    assert cache.length == N
    torch.testing.assert_close(found[real], whole[real], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["none", "rope", "alibi", "t5"])
def test_the_future_is_never_seen(name):
    stack = make(position=POSITIONS[name])
    x = X.clone().requires_grad_()
    stack(x)[:, 2].sum().backward()
    assert not x.grad[:, 3:].any() and x.grad[:, :3].abs().sum(-1).all()


def test_without_positions_a_stack_sees_a_set():
    stack = make(position="none", causal=False)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stack(X[:, order]), stack(X)[:, order])
    ordered = make(position="rope", causal=False)
    assert not torch.allclose(ordered(X[:, order]), ordered(X)[:, order])


def test_a_causal_stack_without_positions_still_tells_orders_apart():
    """NoPE (arXiv 2305.19466): the causal rule alone breaks the symmetry, from two layers on."""
    order = torch.tensor([1, 0, 2, 3, 4, 5])
    one, two = make(depth=1), make(depth=2)
    # one layer: the last token sees the set of what came before
    torch.testing.assert_close(one(X[:, order])[:, -1], one(X)[:, -1])
    assert not torch.allclose(two(X[:, order])[:, -1], two(X)[:, -1])


def test_given_positions_take_the_place_of_counted_ones():
    stack = make(position="learned", length=12)
    shifted = stack(X, positions=torch.arange(3, 3 + N)[None])
    with torch.no_grad():
        stack.positions[0].weight.copy_(stack.positions[0].weight.roll(-3, 0))
    torch.testing.assert_close(shifted, stack(X))


def test_a_turned_input_does_not_turn_every_sum():
    """A sum has the strides of its first term, and norms would copy it in every layer."""
    stack, seen = make(position="learned", length=N), []
    for layer in stack.layers:
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].is_contiguous()))
    found = stack(X.transpose(1, 2).contiguous().transpose(1, 2))
    assert seen == [True] * 2
    torch.testing.assert_close(found, stack(X))


def test_two_positions_with_parameters_in_every_layer_are_too_many():
    with pytest.raises(ConfigError, match=r"position.*shaw.*transformer-xl"):
        make(position=["shaw", "transformer-xl"])


# -- looking inside --------------------------------------------------------------------------------


def test_a_record_keeps_what_was_asked_for():
    stack = make()
    record = Record(attention=True, layers=frozenset({-1, 0}))
    plain = stack(X)
    torch.testing.assert_close(stack(X, record=record), plain)
    assert sorted(record.hidden) == [-1, 0] and sorted(record.weights) == [0, 1]
    torch.testing.assert_close(record.hidden[-1], X)
    torch.testing.assert_close(record.hidden[0], pre(stack.layers[0], X))
    weights = record.weights[1]
    assert weights.shape == (B, 4, N, N) and not weights.requires_grad
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, 4, N).double())


# -- training --------------------------------------------------------------------------------------


def test_dropout_acts_in_training_only():
    stack = make(dropout=0.4)
    torch.testing.assert_close(stack(X), make()(X))
    stack.train()
    assert not torch.equal(stack(X), stack(X))


def test_dropout_of_the_embeddings_can_differ():
    stack = make(depth=0, dropout=0.9, embedding_dropout=0.0, final_norm=False).train()
    assert torch.equal(stack(X), X)
    stack = make(depth=0, dropout=0.0, embedding_dropout=0.5, final_norm=False).train()
    dropped = stack(X)
    kept = dropped != 0
    assert 0.2 < kept.double().mean() < 0.8
    torch.testing.assert_close(dropped[kept], 2 * X[kept])


def test_drop_path_skips_whole_samples_and_keeps_the_mean():
    stack = make(depth=2, drop_path=0.5, final_norm=False).train()
    x = X[:1].expand(400, -1, -1)
    torch.manual_seed(0)
    first = stack.layers[0](x, CAUSAL)  # it grows with depth: the first layer drops nothing
    torch.testing.assert_close(first, first[:1].expand_as(first))
    last = stack.layers[1](x, CAUSAL)
    skipped = (last == x).all(-1).all(-1)
    assert 0.15 < skipped.double().mean() < 0.35  # both sublayers, each with chance 1/2
    stack.eval()
    torch.testing.assert_close(stack.layers[1](x, CAUSAL), pre(stack.layers[1], x))


def test_recomputing_blocks_changes_no_gradient():
    plain, saving = make(), make(checkpoint=True)
    saving.train(), plain.train()
    for stack in (plain, saving):
        stack(X).square().sum().backward()
    for ours, theirs in zip(saving.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_output_projections_can_start_smaller_with_depth():
    keys = {"kind": "transformer", "depth": 8, "width": 128, "init_residual": "depth"}
    stack = initialise(build(resolve("backbone", keys)), 0)
    for layer in (stack.layers[0], stack.layers[7]):
        for part in (layer.attention.out, layer.feedforward.down):
            ratio = part.weight.std() / layer.attention.qkv.weight.std()
            torch.testing.assert_close(ratio, torch.tensor(0.25), atol=0.01, rtol=0)


def test_the_seed_decides_the_weights():
    keys = {"kind": "transformer", "depth": 2, "width": WIDTH}
    states = [initialise(build(resolve("backbone", keys)), s).state_dict() for s in (0, 0, 1)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"width": 30, "attention": {"heads": 4}}, r"width 30 does not divide into 4 heads"),
        ({"attention": {"heads": 4, "kv_heads": 3}}, r"4 query heads cannot share 3"),
        ({"position": "learned"}, r"position 'learned' needs a length"),
        ({"placement": "middle"}, r"must be one of pre, post, both, none"),
        ({"dropout": 1.5}, r"dropout: must be at most 1"),
        (
            {"parallel": True, "parallel_norms": 2, "placement": "post"},
            r"parallel_norms: two norms .* not post",
        ),
        ({"order": ["attention", "mlp"]}, r"order"),
    ],
)
def test_wrong_values_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        build(resolve("backbone", {"kind": "transformer", **keys}))
