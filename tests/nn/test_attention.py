"""Attention against torch's own and against what each key of its config says in a formula."""

import pytest
import torch
from torch.nn import functional as F

from zoo.nn.attention import Context, Record
from zoo.nn.cache import DynamicCache
from zoo.nn.mask import Mask
from zoo.registry import build, resolve

B, N, M, WIDTH = 2, 6, 4, 24


def make(width=WIDTH, seed=0, cross=False, memory_width=None, **keys):
    config = resolve("attention", {"name": "multihead", "kernel": "plain", **keys})
    layer = build(config, width=width, cross=cross, memory_width=memory_width)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return layer.double()


def data(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("heads", [1, 2, 6])
@pytest.mark.parametrize("causal", [False, True])
def test_is_torchs_multihead_attention(heads, causal):
    layer = make(heads=heads)
    torchs = torch.nn.MultiheadAttention(WIDTH, heads, batch_first=True).double()
    torchs.load_state_dict(
        {
            "in_proj_weight": layer.qkv.weight,
            "in_proj_bias": layer.qkv.bias,
            "out_proj.weight": layer.out.weight,
            "out_proj.bias": layer.out.bias,
        }
    )
    x = data(B, N, WIDTH)
    hidden = torch.ones(N, N).triu(1).bool() if causal else None
    expected, weights = torchs(x, x, x, attn_mask=hidden, average_attn_weights=False)
    record = Record(attention=True)
    found = layer(x, Context(Mask(causal=causal), record=record))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(record.weights[0], weights)


def test_cross_attention_is_torchs():
    layer = make(heads=3, cross=True, memory_width=10)
    torchs = torch.nn.MultiheadAttention(WIDTH, 3, kdim=10, vdim=10, batch_first=True).double()
    k, v = layer.kv.weight.split(WIDTH)
    torchs.load_state_dict(
        {
            "q_proj_weight": layer.q.weight,
            "k_proj_weight": k,
            "v_proj_weight": v,
            "in_proj_bias": torch.cat([layer.q.bias, layer.kv.bias]),
            "out_proj.weight": layer.out.weight,
            "out_proj.bias": layer.out.bias,
        }
    )
    x, memory = data(B, N, WIDTH), data(B, M, 10, seed=2)
    real = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    expected, _ = torchs(x, memory, memory, key_padding_mask=~real)
    # the causal rule of the stack is no rule of its memory
    context = Context(Mask(causal=True), memory=memory, memory_mask=Mask(padding=real))
    torch.testing.assert_close(layer(x, context), expected)


@pytest.mark.parametrize("kv_heads", [1, 2, 3])
@pytest.mark.parametrize("kernel", ["plain", "sdpa"])
def test_grouped_heads_are_repeated_heads(kv_heads, kernel):
    grouped = make(heads=6, kv_heads=kv_heads, head_dim=4, kernel=kernel)
    full = make(heads=6, head_dim=4)
    q, k, v = grouped.qkv.weight.split([24, 4 * kv_heads, 4 * kv_heads])
    qb, kb, vb = grouped.qkv.bias.split([24, 4 * kv_heads, 4 * kv_heads])

    def repeated(rows):  # head g of the keys serves 6 / kv_heads query heads in a row
        rows = rows.view(kv_heads, 4, -1).repeat_interleave(6 // kv_heads, 0)
        return rows.flatten(0, 1)

    with torch.no_grad():
        full.qkv.weight.copy_(torch.cat([q, repeated(k), repeated(v)]))
        full.qkv.bias.copy_(torch.cat([qb, repeated(kb)[:, 0], repeated(vb)[:, 0]]))
        full.out.load_state_dict(grouped.out.state_dict())
    x, context = data(B, N, WIDTH), Context(Mask(causal=True))
    torch.testing.assert_close(grouped(x, context), full(x, context))


def test_the_scale_is_over_the_root_of_the_head_unless_given():
    x = data(B, N, WIDTH)
    for scale in (None, 1.0, 0.3):
        layer = make(heads=3, head_dim=16, scale=scale)
        q, k, v = (t.view(B, N, 3, 16).transpose(1, 2) for t in layer.qkv(x).split(48, -1))
        weights = (q @ k.mT * (scale or 16**-0.5)).softmax(-1)
        expected = layer.out((weights @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(layer(x, Context()), expected)


def test_clip_bounds_queries_keys_and_values():
    x = data(B, N, WIDTH) * 5
    layer, free = make(heads=3, clip=0.5), make(heads=3)
    q, k, v = layer.qkv(x).clamp(-0.5, 0.5).chunk(3, -1)
    q, k, v = (t.view(B, N, 3, 8).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.mT * 8**-0.5).softmax(-1)
    expected = layer.out((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x, Context()), expected)
    assert not torch.allclose(free(x, Context()), expected)


@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_qk_norm_acts_on_each_head_before_the_rotation(norm):
    layer = make(heads=4, kv_heads=2, head_dim=6, qk_norm=norm)
    x = data(B, N, WIDTH)
    angle = torch.arange(N, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.3, 0.1]).double()
    angle = torch.cat([angle, angle], -1)[None, None]
    q, k, v = layer.qkv(x).split([24, 12, 12], -1)
    q, k, v = (t.view(B, N, -1, 6).transpose(1, 2) for t in (q, k, v))
    q, k = layer.q_norm(q), layer.k_norm(k)

    def turned(t):
        first, second = t.chunk(2, -1)
        return t * angle.cos() + torch.cat([-second, first], -1) * angle.sin()

    k, v = (t.repeat_interleave(2, 1) for t in (turned(k), v))
    weights = (turned(q) @ k.mT * 6**-0.5).softmax(-1)
    expected = layer.out((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x, Context(angles=(angle.cos(), angle.sin()))), expected)


def test_window_sees_only_the_last_tokens():
    layer, free = make(heads=3, window=2), make(heads=3)
    x = data(B, N, WIDTH)
    band = torch.ones(N, N).tril().bool() & torch.ones(N, N).triu(-1).bool()
    expected = free(x, Context(Mask(dense=band[None, None])))
    torch.testing.assert_close(layer(x, Context(Mask(causal=True))), expected)


@pytest.mark.parametrize("keys", [{}, {"kv_heads": 1}, {"window": 3}, {"qk_norm": "rms"}])
@pytest.mark.parametrize("kernel", ["plain", "sdpa"])
def test_a_cache_changes_nothing(keys, kernel):
    layer = make(heads=3, kernel=kernel, **keys)
    x, mask = data(B, N, WIDTH), Mask(causal=True)
    whole = layer(x, Context(mask))
    cache = DynamicCache()
    parts = [layer(part, Context(mask, cache=cache)) for part in x.split([3, 1, 2], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_a_cached_memory_is_read_once():
    layer = make(heads=3, cross=True)
    x, memory, cache = data(B, N, WIDTH), data(B, M, WIDTH, seed=2), DynamicCache()
    expected = layer(x, Context(memory=memory))
    torch.testing.assert_close(layer(x, Context(memory=memory, cache=cache)), expected)
    torch.testing.assert_close(layer(x, Context(memory=None, cache=cache)), expected)


@pytest.mark.parametrize(
    ("keys", "width", "shape"),
    [
        ({}, 768, (12, 12, 64)),
        ({"heads": 8}, 768, (8, 8, 96)),
        ({"heads": 8, "kv_heads": 2}, 768, (8, 2, 96)),
        ({"head_dim": 128}, 768, (6, 6, 128)),
        ({"heads": 5, "head_dim": 7}, 32, (5, 5, 7)),
        ({}, 24, (1, 1, 24)),
    ],
)
def test_shape_of_heads(keys, width, shape):
    assert resolve("attention", {"name": "multihead", **keys}).shape(width) == shape


def test_biases_are_where_the_config_says():
    layer = make(heads=3, qkv_bias=True, out_bias=False)
    assert layer.qkv.bias is not None and layer.out.bias is None
    layer = make(heads=3, qkv_bias=False, out_bias=True)
    assert layer.qkv.bias is None and layer.out.bias is not None


def test_dropout_only_in_training():
    layer = make(heads=3, dropout=0.5)
    x = data(B, N, WIDTH)
    torch.testing.assert_close(layer.eval()(x, Context()), make(heads=3)(x, Context()))
    layer.train()
    assert not torch.equal(layer(x, Context()), layer(x, Context()))


def test_another_source_gives_the_keys_and_values():
    layer, source = make(heads=3), data(B, N + 2, WIDTH, seed=3)
    x = data(B, N, WIDTH)
    q = F.linear(x, layer.qkv.weight[:24], layer.qkv.bias[:24]).view(B, N, 3, 8).transpose(1, 2)
    kv = F.linear(source, layer.qkv.weight[24:], layer.qkv.bias[24:])
    k, v = (t.view(B, N + 2, 3, 8).transpose(1, 2) for t in kv.chunk(2, -1))
    weights = (q @ k.mT * 8**-0.5).softmax(-1)
    expected = layer.out((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x, Context(source=source)), expected)


def test_keys_from_elsewhere_turn_by_their_own_angles():
    """Queries in the middle of a sequence give what they give among all of its queries."""
    layer = make(heads=3)
    x = data(B, N, WIDTH)
    angle = torch.arange(N)[:, None] * torch.tensor([1.0, 0.1, 0.7, 0.2] * 2).double()
    angles = (angle.cos(), angle.sin())
    whole = layer(x, Context(angles=angles))
    some = Context(angles=tuple(t[2:4] for t in angles), key_angles=angles, source=x)
    torch.testing.assert_close(layer(x[:, 2:4], some), whole[:, 2:4])
