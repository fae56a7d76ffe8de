"""Relative positions with learned weights, against sums written out pair by pair."""

import math

import pytest
import torch

from zoo.errors import ConfigError
from zoo.nn.attention import Context
from zoo.nn.mask import Mask
from zoo.nn.position import Geometry, Where
from zoo.nn.relative import buckets
from zoo.registry import build, resolve

B, H, G, Q, K, C, WIDTH = 2, 4, 2, 3, 6, 5, 12


def make(value, heads=H, **keys):
    geometry = Geometry(width=WIDTH, heads=heads, head_dim=C, std=0.5, **keys)
    return fill(build(resolve("position", value), geometry=geometry))


def fill(module):
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return module.double()


def heads(groups=H, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(B, H, Q, C), (B, groups, K, C), (B, groups, K, C)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def context(types=None):
    queries, keys = torch.arange(K - Q, K)[None], torch.arange(K)[None]
    return Context(Mask(causal=True), where=Where(queries, keys), types=types)


# -- Swin ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(3, 4), (2, 3, 2)])
def test_a_network_of_offsets_pair_by_pair(grid):
    position = make(
        {"name": "continuous", "width": 7, "layers": 2, "slope": 0.1}, grid=(9,) * len(grid)
    )
    first, second, last = position.maps
    places = torch.cartesian_prod(*(torch.arange(size) for size in grid))
    found = position.bias(Where(places[:1], places[:1], grid), torch.float64)
    assert found.shape == (1, H, len(places), len(places))
    for i, query in enumerate(places):
        for j, key in enumerate(places):
            offset = (query - key).double()
            x = torch.nn.functional.leaky_relu(first(offset.sign() * (1 + offset.abs()).log()), 0.1)
            x = last(torch.nn.functional.leaky_relu(second(x), 0.1))
            torch.testing.assert_close(found[0, :, i, j], x)
    with pytest.raises(ConfigError, match="'continuous' serves a grid"):
        make("continuous")


# -- T5 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("count", "longest"), [(32, 128), (8, 20)])
def test_buckets_are_t5s(causal, count, longest):
    pytest.importorskip("transformers")
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-300, 301)
    expected = T5Attention._relative_position_bucket(distance, not causal, count, longest)
    assert torch.equal(buckets(distance, count, longest, causal), expected)


def test_buckets_are_exact_near_by_and_shared_far_off():
    near = buckets(-torch.arange(16), 32, 128, causal=True)
    assert torch.equal(near, torch.arange(16))
    far = buckets(-torch.arange(128, 200), 32, 128, causal=True)
    assert (far == 31).all()
    assert (buckets(torch.arange(1, 9), 32, 128, causal=True) == 0).all()  # the future is one
    both = buckets(torch.tensor([-3, 3]), 32, 128, causal=False)
    assert both.tolist() == [3, 16 + 3]


def test_one_table_biases_every_layer():
    position = make({"name": "t5", "buckets": 8, "max_distance": 20}, causal=True)
    bias = position.bias(context().where, torch.float64)
    assert bias.shape == (1, H, Q, K) and position.layer_part() is None
    for query in range(Q):
        for key in range(K):
            bucket = buckets(torch.tensor(key - (query + K - Q)), 8, 20, True)
            torch.testing.assert_close(bias[0, :, query, key], position.table.weight[bucket])


def test_a_table_in_every_layer():
    position = make({"name": "t5", "per_layer": True})
    assert position.bias(context().where, torch.float64) is None
    assert not list(position.parameters())
    first, second = fill(position.layer_part()), fill(position.layer_part())
    q, k, _ = heads()
    bias = first(q, k, context(), 1.0)
    assert bias.shape == (1, H, Q, K)
    torch.testing.assert_close(bias, first.biases(context().where, torch.float64))
    assert not torch.equal(bias, second(q, k, context(), 1.0))


# -- Shaw ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("groups", [H, G])
def test_shaw_is_the_formula(values, shared, groups):
    """Equations 3 and 4 of arXiv 1803.02155."""
    part = fill(
        make({"name": "shaw", "distance": 2, "values": values, "shared": shared}).layer_part()
    )
    q, k, v = heads(groups)
    scale, share = 0.4, H // groups
    table_k = part.keys
    table_v = None if not values else part.keys if shared else part.values
    expected = torch.zeros(B, H, Q, C, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            for i in range(Q):
                place = i + K - Q
                rows = [max(-2, min(2, j - place)) + 2 for j in range(place + 1)]
                keys = k[b, h // share, : place + 1] + table_k[rows]
                weights = (keys @ q[b, h, i] * scale).softmax(-1)
                seen = v[b, h // share, : place + 1]
                seen = seen if table_v is None else seen + table_v[rows]
                expected[b, h, i] = weights @ seen
    bias = part(q, k, context(), scale)
    if values:
        found = part.attend_values(q, k, v, Mask(causal=True), bias, scale, 0.0)
    else:
        kernel = build(resolve("kernel", "sdpa"))
        found, _ = kernel.attend(q, k, v, Mask(causal=True), bias, scale)
    torch.testing.assert_close(found, expected)
    assert hasattr(part, "values") == (values and not shared)


# -- Transformer-XL --------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["split", "interleaved"])
@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("groups", [H, G])
def test_transformer_xl_is_the_formula(layout, segments, groups):
    """((q + u) k + (q + v) r[distance] + (q + s) e[same]) * scale, of which q k is the kernel's."""
    position = make({"name": "transformer-xl", "layout": layout, "segments": segments})
    part = fill(position.layer_part())
    q, k, _ = heads(groups)
    types = (torch.tensor([[0, 0, 1], [1, 1, 1]]), torch.tensor([[0, 0, 0, 0, 1, 1], [1] * 6]))
    found = part(q, k, context(types if segments else None), 0.4)
    for b in range(B):
        for h in range(H):
            for i in range(Q):
                for j in range(K):
                    distance = i + K - Q - j
                    sinusoid = torch.zeros(WIDTH, dtype=torch.float64)
                    for pair in range(WIDTH // 2):
                        angle = distance / 10000 ** (2 * pair / WIDTH)
                        at = (pair, WIDTH // 2 + pair)
                        at = at if layout == "split" else (2 * pair, 2 * pair + 1)
                        sinusoid[at[0]], sinusoid[at[1]] = math.sin(angle), math.cos(angle)
                    r = (part.project.weight @ sinusoid).view(H, C)[h]
                    expected = part.content_bias[h] @ k[b, h * groups // H, j]
                    expected = expected + (q[b, h, i] + part.position_bias[h]) @ r
                    if segments:
                        other = int(types[0][b, i] != types[1][b, j])
                        vector = part.segment_embedding[other, h]
                        expected = expected + (q[b, h, i] + part.segment_bias[h]) @ vector
                    # the sinusoid is computed in fp32
                    torch.testing.assert_close(
                        found[b, h, i, j], expected * 0.4, atol=1e-5, rtol=1e-5
                    )


def test_transformer_xl_needs_an_even_width():
    with pytest.raises(ConfigError, match="even width, got 13"):
        build(
            resolve("position", "transformer-xl"),
            geometry=Geometry(width=13, heads=1, head_dim=13),
        )


@pytest.mark.parametrize("clamp", [None, 2])
@pytest.mark.parametrize("kind", ["transformer-xl", "shaw"])
def test_queries_at_chosen_places(kind, clamp):
    """A query's scores depend on where it stands, not on which others are asked with it."""
    clamped = {"clamp": clamp} if kind == "transformer-xl" else {"distance": clamp or 9}
    values = {} if kind == "transformer-xl" else {"values": False}
    part = fill(make({"name": kind, **clamped, **values}).layer_part())
    _, k, _ = heads()
    q = torch.randn(B, H, K, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = part(q, k, context(), 0.4)
    places = torch.tensor([[4, 0, 4], [5, 2, 1]])
    asked = torch.stack([q[b][:, places[b]] for b in range(B)])
    chosen = context()
    chosen.places = places
    found = part(asked, k, chosen, 0.4)
    for b in range(B):
        torch.testing.assert_close(found[b], whole[b][:, places[b]])


def test_clamped_distances_are_one():
    """From the clamp on, scores of distance are the same; unclamped they are not."""
    for clamp, same in ((2, True), (None, False)):
        part = fill(make({"name": "transformer-xl", "clamp": clamp}).layer_part())
        q = torch.ones(1, H, K, C, dtype=torch.float64)
        scores = part(q, torch.zeros_like(q), context(), 1.0)
        far = scores[..., 5, 0], scores[..., 5, 2]  # 5 and 3 back
        assert torch.equal(*far) == same
        assert not torch.equal(scores[..., 5, 3], scores[..., 5, 5])
